# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_verdict_receiver_global_optspecs
    string join \n h/help V/version
end

function __fish_verdict_receiver_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_verdict_receiver_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_verdict_receiver_using_subcommand
    set -l cmd (__fish_verdict_receiver_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c verdict-receiver -n "__fish_verdict_receiver_needs_command" -s h -l help -d 'Print help'
complete -c verdict-receiver -n "__fish_verdict_receiver_needs_command" -s V -l version -d 'Print version'
complete -c verdict-receiver -n "__fish_verdict_receiver_needs_command" -f -a "serve" -d 'Keep events in SQLite, answer /health, /stats, /events, alert by e-mail and Slack'
complete -c verdict-receiver -n "__fish_verdict_receiver_needs_command" -f -a "test-server" -d 'Print every request readably and say what is wrong with it'
complete -c verdict-receiver -n "__fish_verdict_receiver_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand serve" -l config -d 'Settings in TOML; must not be readable by everybody if it holds a secret' -r -F
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand serve" -l bind -d 'Where to listen [default: 127.0.0.1:5000]' -r
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand serve" -s h -l help -d 'Print help'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand serve" -s V -l version -d 'Print version'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l port -d 'Port to listen on; 0 for any free one' -r
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l bind -d 'Address to listen on' -r
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l secret -d 'The secret that requests are signed with. Other users of this machine can read it here: --secret-file and the variable WEBHOOK_SECRET keep it to yourself' -r
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l secret-file -d 'File with the secret, one a line if there are several' -r -F
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l fail -d 'Answer every request with this status instead' -r
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l delay -d 'Wait this long before each answer: 500ms, 2s, 1m' -r
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -l drop -d 'Close the connection instead of answering'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -s h -l help -d 'Print help'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand test-server" -s V -l version -d 'Print version'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand help; and not __fish_seen_subcommand_from serve test-server help" -f -a "serve" -d 'Keep events in SQLite, answer /health, /stats, /events, alert by e-mail and Slack'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand help; and not __fish_seen_subcommand_from serve test-server help" -f -a "test-server" -d 'Print every request readably and say what is wrong with it'
complete -c verdict-receiver -n "__fish_verdict_receiver_using_subcommand help; and not __fish_seen_subcommand_from serve test-server help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
