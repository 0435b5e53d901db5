/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_STRICT_H
#define SLICELB_STRICT_H

#include "event.h"

/* Of headers that are not for the kernel. */
enum { SLB_SOCK_STREAM = 1, SLB_SOCK_DGRAM = 2, SLB_ICMPV6 = 58 };

/*
 * Does every connection of such a socket pass a hook? MPTCP's first one does; the
 * kernel opens others by itself. Echo requests of ICMP carry no connection.
 */
static __always_inline bool sock_hooked(const struct bpf_sock *sk)
{
	switch (sk->protocol) {
	case IPPROTO_TCP:
		return sk->type == SLB_SOCK_STREAM;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case SLB_ICMPV6:
		return sk->type == SLB_SOCK_DGRAM;
	}
	return false;
}

/* May the calling task make this socket? Those of a strict group make hooked ones only. */
static __always_inline bool sock_allowed(struct bpf_sock *sk)
{
	struct slb_decision d = { .what = SLB_WHAT_SOCKET, .reason = SLB_WHY_STRICT };
	struct slb_frontend_key what = {};
	__u64 *word;

	if (sock_hooked(sk) || bpf_get_retval() < 0)
		return true;
	d.group = SLB_CGROUP_GROUP(slb_word_of_current(&d.member));
	word = bpf_map_lookup_elem(&groups, &d.group);
	if (!word || !(READ_ONCE(*word) & SLB_GROUP_STRICT))
		return true;
	count_stat(SLB_STAT_STRICT_REFUSED);
	what.proto = sk->type;
	what.port_be = bpf_htons(sk->protocol);
	decision_event(sk, &what, &d, SLB_TOLD_DENIED, 0);
	return false;
}

#endif
