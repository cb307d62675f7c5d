# Speaks to nfnetlink_queue as nobody of ours does, with what every Debian has.
#   queue.pl hold NUMBER...   binds the queues, says "bound", stays
#   queue.pl ct NUMBER        binds it and asks for conntrack's data; says which attributes the first packet has
use strict;
use warnings;

my ($what, @numbers) = @ARGV;
socket(my $netlink, 16, 3, 12) or die "no netlink socket: $!";

# linux/netfilter/nfnetlink_queue.h
sub attribute { my ($type, $value) = @_; return pack("SSa*x![4]", 4 + length $value, $type, $value) }
sub ask {
    my ($number, @attributes) = @_;
    my $body = pack("CCn", 0, 0, $number) . join("", @attributes);
    my $message = pack("LSSLL", 16 + length $body, 0x302, 5, 1, 0) . $body;
    send($netlink, $message, 0, pack("SSLL", 16, 0, 0, 0)) or die "send: $!";
    recv($netlink, my $answer, 8192, 0);
    my $error = unpack("x16l", $answer);
    die "queue $number: error $error\n" if $error;
}
my $bind = attribute(1, pack("CCn", 1, 0, 0));
my $packets = attribute(2, pack("NC", 64, 2));
for my $number (@numbers) {
    ask($number, $bind, $packets);
    # NFQA_CFG_F_CONNTRACK
    ask($number, attribute(4, pack("N", 2)), attribute(5, pack("N", 2))) if $what eq "ct";
}
$| = 1;
print "bound\n";
sleep 1000 if $what eq "hold";
# Behind answers to what was asked.
my $packet;
do { recv($netlink, $packet, 65536, 0) } while unpack("x4S", $packet) != 0x300;
my ($rest, @types) = (substr($packet, 20));
while (length $rest >= 4) {
    my ($length, $type) = unpack("SS", $rest);
    push @types, $type & 0x3fff;
    $rest = substr($rest, ($length + 3) & ~3);
}
print "attributes @types\n";
