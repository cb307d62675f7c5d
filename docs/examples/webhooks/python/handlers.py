"""A handler for each type of event: the place to start from. Each prints one line; put your own work there."""

from verdict_webhook import Dispatcher, serve

dispatcher = Dispatcher()


def say(event, text):
    print(f"{event['timestamp']} {event['event_type']}: {text}", flush=True)


def source(data):
    """What is banned: an IPv6 source is banned with its prefix."""
    return data.get("prefix", data["ip"])


@dispatcher.on("firewall_started")
def firewall_started(event):
    data = event["data"]
    say(event, f"{data['firewall_mode']}, {data['security_mode']}: {data['unique_ports_threshold']} ports are tolerated")


@dispatcher.on("firewall_stopped")
def firewall_stopped(event):
    say(event, "the engine stopped; its bans hold in the kernel")


@dispatcher.on("connection_attempt")
def connection_attempt(event):
    data = event["data"]
    # Above ten a second of one source, one event stands for `count` attempts.
    say(event, f"{data['ip']} -> {data['protocol']}/{data['port']} ({data.get('count', 1)})")


@dispatcher.on("ip_blocked")
def ip_blocked(event):
    data = event["data"]
    # until is null for a ban without end
    say(event, f"{source(data)} for {data['reason']}, offence {data['block_count']}, until {data['until']}")


@dispatcher.on("ip_unblocked")
def ip_unblocked(event):
    say(event, f"{source(event['data'])}: {event['data']['reason']}")


@dispatcher.on("port_scanning_detected")
def port_scanning_detected(event):
    data = event["data"]
    say(event, f"{data['ip']} asked for {data['unique_ports_scanned']} ports ({data['threshold']} are tolerated)")


@dispatcher.on("suspicious_scanning_detected")
def suspicious_scanning_detected(event):
    data = event["data"]
    say(event, f"{data['ip']}: {data['scan_type']}, {data['total_suspicious_scans']} probes")


@dispatcher.on("distributed_attack_detected")
def distributed_attack_detected(event):
    data = event["data"]
    say(event, f"port {data['port']}, {data['attempts']} attempts of {', '.join(data['sources'])}")


@dispatcher.on("distributed_attack_ended")
def distributed_attack_ended(event):
    say(event, f"port {event['data']['port']} is quiet")


@dispatcher.on("block_error", "unblock_error")
def could_not(event):
    data = event["data"]
    say(event, f"{source(data)}: {data['error']}")


@dispatcher.on("ban_storm")
def ban_storm(event):
    say(event, f"more than {event['data']['max_bans_per_minute']} bans a minute: somebody must look")


@dispatcher.on("integrity_violation", "selftest_failed", "ruleset_wiped")
def protection_at_stake(event):
    say(event, event["data"]["detail"])


@dispatcher.on("state_degraded")
def state_degraded(event):
    say(event, "; ".join(event["data"]["reasons"]))


@dispatcher.other
def unknown(event):
    say(event, f"not known here: {event['data']}")


if __name__ == "__main__":
    serve(dispatcher)
