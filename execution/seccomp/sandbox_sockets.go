package seccomp

import "github.com/moby/profiles/seccomp"

// Linux's numbers of socket families, types and protocols.
const (
	familyUnix    = 1
	familyIPv4    = 2
	familyIPv6    = 10
	familyNetlink = 16

	typeBits     = 0xf // the other bits of the argument are SOCK_CLOEXEC and SOCK_NONBLOCK
	typeStream   = 1
	typeDatagram = 2
	typeRaw      = 3

	protocolTCP = 6
	protocolUDP = 17
)

// sockets returns the rules for the kinds of sockets. Allowed are Unix, TCP, UDP, and the part
// of netlink that getifaddrs(3) and if_nameindex(3) use. Every other protocol is denied: the
// kernel limits the memory of each such socket but not of all together, no cgroup counts
// it, and a request for an unknown protocol makes the kernel load a module.
func sockets() []*seccomp.Syscall {
	socket, pair := []string{"socket"}, []string{"socketpair"}
	const family, kind, protocol = 0, 1, 2
	rules := []*seccomp.Syscall{
		allow(socket, is(family, familyUnix)),
		allow(pair, is(family, familyUnix)),
		answer(noSuchFamily, pair, isAbove(family, familyUnix)),
	}
	for _, version := range []uint64{familyIPv4, familyIPv6} {
		for _, known := range [][2]uint64{{typeStream, 0}, {typeStream, protocolTCP}, {typeDatagram, 0}, {typeDatagram, protocolUDP}} {
			rules = append(rules, allow(socket, is(family, version), has(kind, typeBits, known[0]), is(protocol, known[1])))
		}
	}
	for _, known := range []uint64{typeDatagram, typeRaw} {
		rules = append(rules, allow(socket, is(family, familyNetlink), has(kind, typeBits, known), is(protocol, 0))) // NETLINK_ROUTE
	}
	rules = append(rules,
		answer(noSuchFamily, socket, is(family, familyNetlink), isAbove(protocol, 0)),
		answer(noSuchFamily, socket, isAbove(family, familyNetlink)))
	for other := range uint64(familyNetlink) {
		if other != familyUnix && other != familyIPv4 && other != familyIPv6 {
			rules = append(rules, answer(noSuchFamily, socket, is(family, other)))
		}
	}
	return rules
}

// socketOptions returns the rules for setsockopt(2). They allow the listed options only. Not
// listed are those by which a socket holds lists or buffers that no cgroup counts: keys of
// TCP, groups of IPv6, sources of groups, headers to send, corked datagrams and filters.
//
// Setting the size of a buffer succeeds without effect, so that a socket keeps no more than
// the kernel's default. Programs cannot rely on the size in any case: the kernel treats it as
// a hint and reduces it silently.
func socketOptions() []*seccomp.Syscall {
	names := []string{"setsockopt"}
	const level, option = 1, 2
	const levelSocket = 1
	var rules []*seccomp.Syscall
	for _, size := range []uint64{7, 8, 32, 33} { // SO_SNDBUF, SO_RCVBUF and their variants that need a capability
		rules = append(rules, answer(success, names, is(level, levelSocket), is(option, size)))
	}
	for _, known := range []struct {
		level   uint64
		options []uint64
	}{
		{levelSocket, []uint64{
			1, 2, 5, 6, 9, 10, 12, 13, 15, // DEBUG REUSEADDR DONTROUTE BROADCAST KEEPALIVE OOBINLINE PRIORITY LINGER REUSEPORT
			16, 18, 19, 20, 21, 25, 29, 35, // PASSCRED RCVLOWAT SNDLOWAT RCVTIMEO SNDTIMEO BINDTODEVICE TIMESTAMP TIMESTAMPNS
			40, 42, 66, 67, // RXQ_OVFL PEEK_OFF RCVTIMEO_NEW SNDTIMEO_NEW
		}},
		{0, []uint64{ // IP
			1, 2, 8, 10, 11, 12, 13, 15, 24, // TOS TTL PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS FREEBIND BIND_ADDRESS_NO_PORT
			32, 33, 34, 35, 36, 49, 50, // MULTICAST_IF _TTL _LOOP ADD_MEMBERSHIP (20 a socket) DROP_MEMBERSHIP MULTICAST_ALL UNICAST_IF
		}},
		{protocolTCP, []uint64{
			1, 2, 3, 4, 5, 6, 7, 8, 9, // NODELAY MAXSEG CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT
			10, 12, 13, 18, 25, 36, // WINDOW_CLAMP QUICKACK CONGESTION USER_TIMEOUT NOTSENT_LOWAT INQ
		}},
		{41, []uint64{ // IPv6
			16, 17, 18, 19, 23, 25, 26, 29, // UNICAST_HOPS MULTICAST_IF _HOPS _LOOP MTU_DISCOVER RECVERR V6ONLY MULTICAST_ALL
			49, 51, 62, 66, 67, 72, 76, 78, // RECVPKTINFO RECVHOPLIMIT DONTFRAG RECVTCLASS TCLASS ADDR_PREFERENCES UNICAST_IF FREEBIND
		}},
		{270, []uint64{10, 11, 12}}, // netlink: CAP_ACK EXT_ACK GET_STRICT_CHK
	} {
		for _, number := range known.options {
			rules = append(rules, allow(names, is(level, known.level), is(option, number)))
		}
	}
	return rules
}
