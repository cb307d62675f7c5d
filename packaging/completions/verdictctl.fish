# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_verdictctl_global_optspecs
    string join \n socket= h/help V/version
end

function __fish_verdictctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_verdictctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_verdictctl_using_subcommand
    set -l cmd (__fish_verdictctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c verdictctl -n "__fish_verdictctl_needs_command" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_needs_command" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -s V -l version -d 'Print version'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "status" -d 'Say whether the host is protected, and how engine and monitor run'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "start" -d 'Start the engine: through systemd where it has the unit, else detached, with its log in the log directory'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "stop" -d 'Stop monitor and engine; rules and bans stay in the kernel'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "restart" -d 'Stop the engine and start it again; the monitor stays'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "monitor" -d 'Start the engine, and the monitor that watches it'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "stats" -d 'Show verdicts by reason, rates, latency, queues, bans and the busiest sources'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "list" -d 'List every live ban'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "ban" -d 'Ban an address or a prefix, in every mode'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "reload" -d 'Read the configuration again: all of it goes into force, or nothing changes'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "apply" -d 'Try out a configuration: say what it changes, put it in force, and go back by itself unless it is confirmed'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "confirm" -d 'Keep what `apply` put in force; from a new connection, which proves that you still get in'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "go-back" -d 'Give up what `apply` put in force, and go back at once'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "unban" -d 'Lift the ban of an address or a prefix'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "exporter" -d 'Serve metrics for Prometheus on loopback, or write them into a file for node_exporter'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "audit" -d 'Verify the audit log'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "harden" -d 'Set owners and modes of programs, units and configuration, and seal them: writes the manifest for `verify`'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "verify" -d 'Compare programs, units and configuration with what was sealed: exit 1 and a line for each difference, exit 2 without a manifest to go by'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "webhook" -d 'Set up, try out and watch the sending of events'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "state" -d 'Show, export, forget or import what is remembered: bans, ladder positions, half-done scans'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "snapshot" -d 'Save the state now, and say where and how much of it'
complete -c verdictctl -n "__fish_verdictctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand status" -l state-dir -d 'Where the monitor says what it found' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand status" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand status" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand start" -l config -d 'The configuration file' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand start" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand start" -l runtime-dir -d 'Where socket and pid files are [default: the folder of the control socket]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand start" -l log-dir -d 'Where logs are; without systemd those of engine (verdictd.log) and monitor (monitor.log) too' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand start" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand start" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l config -d 'The configuration file' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l runtime-dir -d 'Where socket and pid files are [default: the folder of the control socket]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l log-dir -d 'Where logs are; without systemd those of engine (verdictd.log) and monitor (monitor.log) too' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l force -d 'Stop also under on_loss = "closed", where nothing new gets in without the engine'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -l remove-rules -d 'Take rules and bans out of the kernel too, also when no engine runs: the host is then unprotected'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stop" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand restart" -l config -d 'The configuration file' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand restart" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand restart" -l runtime-dir -d 'Where socket and pid files are [default: the folder of the control socket]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand restart" -l log-dir -d 'Where logs are; without systemd those of engine (verdictd.log) and monitor (monitor.log) too' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand restart" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand restart" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand monitor" -l config -d 'The configuration file' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand monitor" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand monitor" -l runtime-dir -d 'Where socket and pid files are [default: the folder of the control socket]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand monitor" -l log-dir -d 'Where logs are; without systemd those of engine (verdictd.log) and monitor (monitor.log) too' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand monitor" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand monitor" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stats" -l top -d 'How many of the busiest sources to show' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stats" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stats" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stats" -l watch -d 'Refresh every second, with the rates of that second; end with Ctrl-C'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand stats" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand list" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand list" -l json -d 'Print JSON: an array'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand list" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand ban" -l for -d 'How long: 90s, 10m, 2h, 1d [default: the first step of the ladder]' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand ban" -l reason -d 'Why, in your own words; shown by `list`' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand ban" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand ban" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand reload" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l confirm -d 'Go back after this time unless `verdictctl confirm` comes from a new connection, 5s to 1h [default: 120s if anything closes, or anybody is banned or no longer trusted]' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l config -d 'The configuration file of the engine' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l no-confirm -d 'Apply for good, also what closes something'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l force -d 'Apply also what would close the port of your own SSH session, or of somebody else\'s'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l yes -d 'Do not ask'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l dry-run -d 'Only say what it would change'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -l json -d 'Print JSON; asks nothing, so that it needs --yes or --dry-run'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand apply" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand confirm" -l config -d 'The configuration file of the engine' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand confirm" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand confirm" -l here -d 'You sit in front of this host, in a window that tells nothing of it'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand confirm" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand go-back" -l config -d 'The configuration file of the engine' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand go-back" -l state-dir -d 'Where state is kept' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand go-back" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand go-back" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand unban" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand unban" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -l listen -d 'Where to answer GET /metrics' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -l textfile -d 'Write the metrics into this file (FILE.prom, for node_exporter) and end' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -l every -d 'Go on, and write it anew this often: 15s, 1m' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -l state-dir -d 'Where the monitor says what it found' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -l public -d 'Allow an address that others reach: whoever can connect may read; there is neither TLS nor a password'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand exporter" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -f -a "verify" -d 'Read every file of the audit log and name each line that is not as it was written: exit 1 if there is one'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and not __fish_seen_subcommand_from verify help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from verify" -l head -d 'The file that says how far it goes [default: that of the engine, for the engine\'s log]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from verify" -l from -d 'Ask nothing about lines before this one: they are kept elsewhere, or were looked into' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from verify" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Read every file of the audit log and name each line that is not as it was written: exit 1 if there is one'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand audit; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l root -d 'Work on the system below this directory instead of the running one' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l config -d 'The configuration' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l manifest -d 'Where the manifest is written' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l binaries -d 'Folder of the programs [default: that of this one; /usr/bin with --root]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l dry-run -d 'Say what would be done, and change nothing'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l yes -d 'Seal what differs from the former seal without asking'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l force -d 'Seal a configuration that does not load, too'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l quiet -d 'Print nothing but what is wrong'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand harden" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand verify" -l root -d 'Look at the system below this directory instead of the running one' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand verify" -l manifest -d 'The manifest that `verdictctl harden` wrote' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand verify" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand verify" -l quiet -d 'Print nothing when all is as it was sealed'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand verify" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand verify" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "setup" -d 'Add, change, disable or remove an endpoint of the configuration'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "test" -d 'Send a test event now, past the engine, and say what is wrong'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "send" -d 'Send a sample of an event now, past the engine'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "status" -d 'Say how the sending of events goes: delivered, failed, waiting, dead letters'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "retry" -d 'Try at once what waits, and dead letters once more'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "service" -d 'Print the systemd unit of the receiver: webhook service > /etc/systemd/system/verdict-receiver.service'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and not __fish_seen_subcommand_from setup test send status retry service help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l config -d 'The configuration to change' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l name -d 'Its name' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l url -d 'Where events are posted; needed for a new endpoint' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l include -d 'Only these events, with commas between' -r -f -a "firewall_started\t''
connection_attempt\t''
ip_blocked\t''
ip_unblocked\t''
port_scanning_detected\t''
distributed_attack_detected\t''
suspicious_scanning_detected\t''
block_error\t''
unblock_error\t''
distributed_attack_ended\t''
ban_storm\t''
integrity_violation\t''
state_degraded\t''
ruleset_wiped\t''
selftest_failed\t''
firewall_stopped\t''"
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l exclude -d 'Not these events' -r -f -a "firewall_started\t''
connection_attempt\t''
ip_blocked\t''
ip_unblocked\t''
port_scanning_detected\t''
distributed_attack_detected\t''
suspicious_scanning_detected\t''
block_error\t''
unblock_error\t''
distributed_attack_ended\t''
ban_storm\t''
integrity_violation\t''
state_degraded\t''
ruleset_wiped\t''
selftest_failed\t''
firewall_stopped\t''"
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l secret-file -d 'File with the secret; made, with a new secret, if it is not there [default: one beside the configuration]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l non-interactive -d 'Ask nothing: add the endpoint --name, or change it if it is there'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l no-secret -d 'Do not sign requests'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l allow-http -d 'Let http:// lead to a public address, readable on its way'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l test -d 'Then send it a test event'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -l reload -d 'Then tell the running engine to reload'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from setup" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l config -d 'The configuration [default: /etc/verdictd/verdictd.toml; none with --url]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l endpoint -d 'One endpoint of the configuration, enabled or not' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l url -d 'An address instead' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l secret -d 'The secret to sign with. Other users of this machine can read it here: --secret-file keeps it to yourself' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l secret-file -d 'File with the secret to sign with' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -l allow-http -d 'Let http:// lead to a public address'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from send" -l config -d 'The configuration' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from send" -l endpoint -d 'Only to this endpoint, enabled or not' -r
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from send" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from send" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from status" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from status" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from retry" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from retry" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from service" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from service" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "setup" -d 'Add, change, disable or remove an endpoint of the configuration'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "test" -d 'Send a test event now, past the engine, and say what is wrong'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "send" -d 'Send a sample of an event now, past the engine'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "status" -d 'Say how the sending of events goes: delivered, failed, waiting, dead letters'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "retry" -d 'Try at once what waits, and dead letters once more'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "service" -d 'Print the systemd unit of the receiver: webhook service > /etc/systemd/system/verdict-receiver.service'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand webhook; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -f -a "show" -d 'Show what is kept and where, what the last start found, the last snapshot and the next one'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -f -a "export" -d 'Print everything that is kept: the snapshot as it is, or one JSON document'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -f -a "reset" -d 'Forget every ban, ladder position and half-done scan, and what is usual; policy and trusted addresses stay'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -f -a "import" -d 'Take over bans and ladder positions of the Python system\'s firewall_state.toml'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and not __fish_seen_subcommand_from show export reset import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from show" -l state-dir -d 'Where state is kept, for when no engine runs' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from show" -l config -d 'The configuration, which may give the state file another name' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from show" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from export" -l state-dir -d 'Where state is kept, for when no engine runs' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from export" -l config -d 'The configuration, which may give the state file another name' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from export" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from export" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from reset" -l state-dir -d 'Where state is kept, for when no engine runs' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from reset" -l config -d 'The configuration, which may give the state file another name' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from reset" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from reset" -l yes -d 'Ask nothing'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from import" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from import" -l dry-run -d 'Say what would become of it, and change nothing'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from import" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show what is kept and where, what the last start found, the last snapshot and the next one'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "export" -d 'Print everything that is kept: the snapshot as it is, or one JSON document'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "reset" -d 'Forget every ban, ladder position and half-done scan, and what is usual; policy and trusted addresses stay'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "import" -d 'Take over bans and ladder positions of the Python system\'s firewall_state.toml'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand snapshot" -l socket -d 'The engine\'s control socket [default: $VERDICTD_SOCKET, else /run/verdictd/control.sock]' -r -F
complete -c verdictctl -n "__fish_verdictctl_using_subcommand snapshot" -l json -d 'Print JSON'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand snapshot" -s h -l help -d 'Print help'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "status" -d 'Say whether the host is protected, and how engine and monitor run'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "start" -d 'Start the engine: through systemd where it has the unit, else detached, with its log in the log directory'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "stop" -d 'Stop monitor and engine; rules and bans stay in the kernel'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "restart" -d 'Stop the engine and start it again; the monitor stays'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "monitor" -d 'Start the engine, and the monitor that watches it'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "stats" -d 'Show verdicts by reason, rates, latency, queues, bans and the busiest sources'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "list" -d 'List every live ban'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "ban" -d 'Ban an address or a prefix, in every mode'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "reload" -d 'Read the configuration again: all of it goes into force, or nothing changes'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "apply" -d 'Try out a configuration: say what it changes, put it in force, and go back by itself unless it is confirmed'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "confirm" -d 'Keep what `apply` put in force; from a new connection, which proves that you still get in'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "go-back" -d 'Give up what `apply` put in force, and go back at once'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "unban" -d 'Lift the ban of an address or a prefix'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "exporter" -d 'Serve metrics for Prometheus on loopback, or write them into a file for node_exporter'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "audit" -d 'Verify the audit log'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "harden" -d 'Set owners and modes of programs, units and configuration, and seal them: writes the manifest for `verify`'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "verify" -d 'Compare programs, units and configuration with what was sealed: exit 1 and a line for each difference, exit 2 without a manifest to go by'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "webhook" -d 'Set up, try out and watch the sending of events'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "state" -d 'Show, export, forget or import what is remembered: bans, ladder positions, half-done scans'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "snapshot" -d 'Save the state now, and say where and how much of it'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and not __fish_seen_subcommand_from status start stop restart monitor stats list ban reload apply confirm go-back unban exporter audit harden verify webhook state snapshot help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from audit" -f -a "verify" -d 'Read every file of the audit log and name each line that is not as it was written: exit 1 if there is one'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "setup" -d 'Add, change, disable or remove an endpoint of the configuration'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "test" -d 'Send a test event now, past the engine, and say what is wrong'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "send" -d 'Send a sample of an event now, past the engine'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "status" -d 'Say how the sending of events goes: delivered, failed, waiting, dead letters'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "retry" -d 'Try at once what waits, and dead letters once more'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from webhook" -f -a "service" -d 'Print the systemd unit of the receiver: webhook service > /etc/systemd/system/verdict-receiver.service'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "show" -d 'Show what is kept and where, what the last start found, the last snapshot and the next one'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "export" -d 'Print everything that is kept: the snapshot as it is, or one JSON document'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "reset" -d 'Forget every ban, ladder position and half-done scan, and what is usual; policy and trusted addresses stay'
complete -c verdictctl -n "__fish_verdictctl_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "import" -d 'Take over bans and ladder positions of the Python system\'s firewall_state.toml'
