# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_verdictd_global_optspecs
    string join \n h/help V/version
end

function __fish_verdictd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_verdictd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_verdictd_using_subcommand
    set -l cmd (__fish_verdictd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c verdictd -n "__fish_verdictd_needs_command" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_needs_command" -s V -l version -d 'Print version'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "run" -d 'Run the engine in the foreground'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "check" -d 'Check a configuration: exit 0, or 2 with every problem in it; with --kernel this machine: exit 1 if there is something to act on'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "restore" -d 'Put rules and bans into the kernel without an engine, as at boot before the network is up; one that runs is left alone'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "ruleset" -d 'Print the nftables ruleset that this configuration would load'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "monitor" -d 'Watch the engine and start it again when it is gone, hangs or does not do its work, needs root'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "selftest" -d 'Try the running engine with a scan of its own: leaves no trace, safe in production, needs root'
complete -c verdictd -n "__fish_verdictd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l state-dir -d 'Where state is kept; one engine per directory' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l runtime-dir -d 'Where the control socket is made' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l log-dir -d 'Where the audit log is kept' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l log-format -d 'How lines of the log look; auto: journald where standard error is the journal, else human' -r -f -a "auto\t''
human\t''
json\t''
journald\t''"
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l log-level -d 'What is logged: error, warn, info, debug or trace [default: $VERDICTD_LOG, else info]' -r
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -l ephemeral -d 'Take the table (rules and bans) out at exit'
complete -c verdictd -n "__fish_verdictd_using_subcommand run" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand check" -l kernel -d 'Check this machine instead: kernel, conntrack, other firewalls, queues, containers, proxies; needs root, no running engine, and changes nothing'
complete -c verdictd -n "__fish_verdictd_using_subcommand check" -l json -d 'Print JSON'
complete -c verdictd -n "__fish_verdictd_using_subcommand check" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_using_subcommand restore" -l config -d 'The configuration file' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand restore" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand restore" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_using_subcommand ruleset" -l config -d 'The configuration file' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand ruleset" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l config -d 'The engine\'s configuration file' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l state-dir -d 'The engine\'s state directory; monitor.json in DIR-monitor says what was found' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l runtime-dir -d 'The engine\'s runtime directory, with its control socket' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l log-dir -d 'The engine\'s log directory' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l manifest -d 'The sums of the files that must not change, as `verdictctl harden` wrote them' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l log-format -d 'How lines of the log look; auto: journald where standard error is the journal, else human' -r -f -a "auto\t''
human\t''
json\t''
journald\t''"
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -l log-level -d 'What is logged: error, warn, info, debug or trace [default: $VERDICTD_LOG, else info]' -r
complete -c verdictd -n "__fish_verdictd_using_subcommand monitor" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_using_subcommand selftest" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictd -n "__fish_verdictd_using_subcommand selftest" -l json -d 'Print JSON'
complete -c verdictd -n "__fish_verdictd_using_subcommand selftest" -s h -l help -d 'Print help'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "run" -d 'Run the engine in the foreground'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "check" -d 'Check a configuration: exit 0, or 2 with every problem in it; with --kernel this machine: exit 1 if there is something to act on'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "restore" -d 'Put rules and bans into the kernel without an engine, as at boot before the network is up; one that runs is left alone'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "ruleset" -d 'Print the nftables ruleset that this configuration would load'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "monitor" -d 'Watch the engine and start it again when it is gone, hangs or does not do its work, needs root'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "selftest" -d 'Try the running engine with a scan of its own: leaves no trace, safe in production, needs root'
complete -c verdictd -n "__fish_verdictd_using_subcommand help; and not __fish_seen_subcommand_from run check restore ruleset monitor selftest help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
