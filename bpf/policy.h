/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Policy: what the rules say of a call, decided once, on the address that the
 * caller named. The table is in api.h; lb resolves "the first rule that matches"
 * into it, so that its cost does not depend on the number of rules: the longest
 * network that holds the address (by binary search over prefix lengths, each a
 * look-up in a hash), the range of ports, the row, the group's exception.
 *
 * The functions that take numbers alone are global, so that the verifier walks
 * through each of them once.
 */
#ifndef SLICELB_POLICY_H
#define SLICELB_POLICY_H

#include "count.h"
#include "group.h"

#define SLB_POLICY_BROKEN 0xffffffffu	/* out of the array: no such line */
#define SLB_POLICY_NO_WORD (~0ULL)

static __always_inline struct slb_policy_line *policy_line(__u32 i)
{
	return bpf_map_lookup_elem(&policy_lines, &i);
}

/* A word, counted from a policy's first line. */
static __always_inline __u64 policy_read(__u32 base, __u32 word)
{
	struct slb_policy_line *l = policy_line(base + (word >> 3));

	return l ? l->w[word & 7] : SLB_POLICY_NO_WORD;
}

static __always_inline bool policy_is4(const struct slb_addr *a)
{
	return !a->word_be[0] && !a->word_be[1] && a->word_be[2] == bpf_htonl(0xffff);
}

/* May a network of the policy hold this address? Most of a host's calls end here. */
static __always_inline bool policy_may_name(__u64 policy, const struct slb_addr *a)
{
	__u32 line = SLB_POLICY_BASE(policy), bit;
	struct slb_policy_line *l;

	if (policy_is4(a)) {
		line += SLB_POLICY_NAMES4;
		bit = a->word_be[3] & 0xffff;
	} else {
		line += SLB_POLICY_NAMES6;
		bit = SLB_POLICY_NAMES6_BIT(a);
	}
	l = policy_line(line + (bit >> 9));
	return !l || l->w[bit >> 6 & 7] >> (bit & 63) & 1;
}

/* For calls to what is no frontend. */
static __always_inline bool policy_names(const struct slb_addr *a)
{
	__u64 policy = policy_word;

	return SLB_POLICY_BASE(policy) && policy_may_name(policy, a);
}

/* The IPv4 network's word, or 0. line is absolute. */
__noinline __u64 slb_policy_net4(__u32 line, __u32 mask, __u64 key)
{
	__u32 home = SLB_POLICY_HOME(key, mask);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SLB_POLICY_PROBES; i++) {
		struct slb_policy_line *l = policy_line(line + ((home + i) & mask));

		if (!l)
			return SLB_POLICY_NO_WORD;
#pragma clang loop unroll(disable)
		for (__u32 j = 0; j < 8; j++) {
			__u64 w = l->w[j & 7];

			if ((w & SLB_POLICY_NET4_KEY) == key)
				return w;
			if (!w)
				return 0;
		}
	}
	return 0;
}

/* The third word of the IPv6 network, or 0. */
__noinline __u64 slb_policy_net6(__u32 line, __u32 mask, __u64 high, __u64 low, __u32 len)
{
	__u64 mixed = (high ^ (low << 1 | low >> 63)) + len;
	__u32 home = SLB_POLICY_HOME(mixed, mask);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SLB_POLICY_PROBES; i++) {
		struct slb_policy_line *l = policy_line(line + ((home + i) & mask));

		if (!l)
			return SLB_POLICY_NO_WORD;
		if (l->w[0] == high && l->w[1] == low && (l->w[2] & 0xff) == len + 1)
			return l->w[2];
		if (l->w[3] == high && l->w[4] == low && (l->w[5] & 0xff) == len + 1)
			return l->w[5];
		if (!l->w[5])
			return 0;
	}
	return 0;
}

/* The table of the longest network that holds addr; 0 = none. */
__noinline __u32 slb_policy_find4(__u32 base, __u32 addr)
{
	__u64 hash = policy_read(base, SLB_POLICY_V4), w;
	struct slb_policy_line *lengths = policy_line(base + SLB_POLICY_LENGTHS4);
	__u32 low = 0, high = SLB_POLICY_HASH_LENGTHS(hash) & 63, best = 0;

	if (!lengths)
		return SLB_POLICY_BROKEN;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 6; i++) {
		__u32 mid = (low + high) / 2, len;

		if (low >= high)
			break;
		len = lengths->w[mid >> 3 & 7] >> (mid & 7) * 8 & 0x3f;
		w = slb_policy_net4(base + SLB_POLICY_HASH_LINE(hash), SLB_POLICY_HASH_MASK(hash),
				    SLB_POLICY_NET4(len ? addr & ~0u << (32 - len & 31) : 0, len));
		if (w == SLB_POLICY_NO_WORD)
			return SLB_POLICY_BROKEN;
		if (w) {
			best = SLB_POLICY_NET4_TABLE(w);
			low = mid + 1;
		} else {
			high = mid;
		}
	}
	return best;
}

__noinline __u32 slb_policy_find6(__u32 base, __u64 upper, __u64 lower)
{
	__u64 hash = policy_read(base, SLB_POLICY_V6), w;
	__u32 low = 0, high = SLB_POLICY_HASH_LENGTHS(hash), best = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 8; i++) {
		__u32 mid = (low + high) / 2, len;
		__u64 h, l;

		if (low >= high)
			break;
		w = policy_read(base + SLB_POLICY_LENGTHS6, mid >> 3);
		if (w == SLB_POLICY_NO_WORD)
			return SLB_POLICY_BROKEN;
		len = w >> (mid & 7) * 8 & 0xff;
		if (len < 64) {
			h = len ? upper & ~0ULL << (64 - len & 63) : 0;
			l = 0;
		} else {
			h = upper;
			l = len == 64 ? 0 : lower & ~0ULL << (128 - len & 63);
		}
		w = slb_policy_net6(base + SLB_POLICY_HASH_LINE(hash), SLB_POLICY_HASH_MASK(hash), h, l, len);
		if (w == SLB_POLICY_NO_WORD)
			return SLB_POLICY_BROKEN;
		if (w) {
			best = SLB_POLICY_NET6_TABLE(w);
			low = mid + 1;
		} else {
			high = mid;
		}
	}
	return best;
}

/* The row of a port in a table. */
__noinline __u32 slb_policy_port(__u32 base, __u32 table, __u32 port, __u32 udp)
{
	__u64 n = policy_read(base, table), w;
	__u32 low = 0, high;

	if (n == SLB_POLICY_NO_WORD || !n)
		return SLB_POLICY_BROKEN;
	high = n;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < 18; i++) {
		__u32 mid = low + (high - low) / 2;

		if (high - low < 2)
			break;
		w = policy_read(base, table + 1 + mid);
		if (w == SLB_POLICY_NO_WORD)
			return SLB_POLICY_BROKEN;
		if (SLB_POLICY_PORT(w) <= port)
			low = mid;
		else
			high = mid;
	}
	w = policy_read(base, table + 1 + low);
	if (w == SLB_POLICY_NO_WORD)
		return SLB_POLICY_BROKEN;
	return udp ? SLB_POLICY_PORT_UDP(w) : SLB_POLICY_PORT_TCP(w);
}

/* The exception's word, or 0. */
__noinline __u64 slb_policy_exception(__u32 base, __u32 row, __u32 class)
{
	__u64 hash = policy_read(base, SLB_POLICY_EXCEPT);
	__u64 key = SLB_POLICY_EXCEPTION(row, class);
	__u32 mask = SLB_POLICY_HASH_MASK(hash), home = SLB_POLICY_HOME(key, mask);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SLB_POLICY_PROBES; i++) {
		struct slb_policy_line *l =
			policy_line(base + SLB_POLICY_HASH_LINE(hash) + ((home + i) & mask));

		if (!l)
			return SLB_POLICY_NO_WORD;
#pragma clang loop unroll(disable)
		for (__u32 j = 0; j < 8; j++) {
			__u64 w = l->w[j & 7];

			if ((w & SLB_POLICY_EXCEPTION_KEY) == key)
				return w;
			if (!w)
				return 0;
		}
	}
	return 0;
}

/* The row of an address, 0 where no rule names it. */
static __always_inline __u32 policy_row(__u32 base, const struct slb_frontend_key *key)
{
	const struct slb_addr *a = &key->addr;
	__u32 table;

	if (policy_is4(a))
		table = slb_policy_find4(base, bpf_ntohl(a->word_be[3]));
	else
		table = slb_policy_find6(base,
			(__u64)bpf_ntohl(a->word_be[0]) << 32 | bpf_ntohl(a->word_be[1]),
			(__u64)bpf_ntohl(a->word_be[2]) << 32 | bpf_ntohl(a->word_be[3]));
	if (!table || table == SLB_POLICY_BROKEN)
		return table;
	return slb_policy_port(base, table, bpf_ntohs(key->port_be), key->proto == IPPROTO_UDP);
}

/* A group's class with its default; SLB_POLICY_BROKEN where there is none. */
static __always_inline __u32 policy_class(__u32 base, __u32 group)
{
	__u64 classes = policy_read(base, SLB_POLICY_CLASSES), w;

	if (group >= (__u32)(classes >> 32))
		group = 0; /* a group that this policy does not know is the host's */
	w = policy_read(base + (__u32)classes, group >> 2);
	return w == SLB_POLICY_NO_WORD ? SLB_POLICY_BROKEN : w >> (group & 3) * 16 & 0xffff;
}

/* Counts what a rule has decided. */
static __always_inline void policy_hit(__u64 policy, __u32 rule)
{
	__u32 index = SLB_POLICY_BANK(policy) * SLB_RULES + rule - 1;
	__u64 *n = bpf_map_lookup_elem(&rule_hits, &index);

	if (n)
		(*n)++;
}

/* Remembers an audited call, for policy suggest. */
static __always_inline void policy_record(const struct slb_frontend_key *key, __u32 group, __u32 rule)
{
	struct slb_seen_key k = {};
	struct slb_seen *seen, fresh = {};
	int err;

	k.addr = key->addr;
	k.group = group;
	k.port_be = key->port_be;
	k.proto = key->proto;
	seen = bpf_map_lookup_elem(&policy_seen, &k);
	if (seen) {
		__sync_fetch_and_add(&seen->count, 1);
		seen->last_ns = bpf_ktime_get_boot_ns();
		seen->rule = rule;
		return;
	}
	fresh.count = 1;
	fresh.last_ns = bpf_ktime_get_boot_ns();
	fresh.rule = rule;
	/* An int: what 6.1 returns of an update has 32 bits. */
	err = bpf_map_update_elem(&policy_seen, &k, &fresh, BPF_NOEXIST);
	if (err == -E2BIG)
		count_stat(SLB_STAT_SEEN_FULL);
}

/* What the policy says, in its low half, and the rule that says so in the high one. */
#define SLB_POLICY_SAYS(action, rule) ((__u64)(action) | (__u64)(rule) << 32)
#define SLB_POLICY_ACTION(says) ((__u32)(says) & 0xff)
#define SLB_POLICY_ERROR (1u << 8) /* it could not be read */

/* The default of a group, where the policy cannot be read: a default-deny group is denied. */
static __always_inline __u64 policy_broken(__u64 policy, __u32 group)
{
	__u64 *word = bpf_map_lookup_elem(&groups, &group);
	bool deny = policy & SLB_POLICY_HOST_DENY;

	count_stat(SLB_STAT_POLICY_BROKEN);
	if (word)
		deny = READ_ONCE(*word) & SLB_GROUP_DENY;
	return SLB_POLICY_ERROR | (deny ? SLB_POLICY_REFUSE : SLB_POLICY_ALLOW);
}

/* What the policy says, without its counting and recording. */
static __always_inline __u64 policy_says(__u64 policy, const struct slb_frontend_key *key,
					 __u32 group, __u32 named, __u32 frontend)
{
	__u32 base = SLB_POLICY_BASE(policy), row = 0, class, r;
	__u64 w;

	if (named) {
		row = policy_row(base, key);
		if (row == SLB_POLICY_BROKEN)
			return policy_broken(policy, group);
	}
	if (!row && !frontend)
		return SLB_POLICY_DEFAULT;
	class = policy_class(base, group);
	if (class == SLB_POLICY_BROKEN)
		return policy_broken(policy, group);
	if (SLB_POLICY_CLASS(class) == SLB_POLICY_EXEMPT)
		return SLB_POLICY_ALLOW;
	if (row) {
		w = policy_read(base, ((__u32)policy_read(base, SLB_POLICY_ROWS) << 3) + (row >> 1));
		if (w == SLB_POLICY_NO_WORD)
			return policy_broken(policy, group);
		r = w >> (row & 1) * 32;
		if (r & SLB_POLICY_ROW_EXCEPT) {
			w = slb_policy_exception(base, row, SLB_POLICY_CLASS(class));
			if (w == SLB_POLICY_NO_WORD)
				return policy_broken(policy, group);
			if (w)
				return SLB_POLICY_SAYS(SLB_POLICY_EXCEPTION_ACTION(w), SLB_POLICY_EXCEPTION_RULE(w));
		}
		if (SLB_POLICY_ROW_ACTION(r) != SLB_POLICY_DEFAULT)
			return SLB_POLICY_SAYS(SLB_POLICY_ROW_ACTION(r), SLB_POLICY_ROW_RULE(r));
	}
	return class & SLB_POLICY_CLASS_DENY ? SLB_POLICY_REFUSE : SLB_POLICY_ALLOW;
}

/*
 * What a policy says of a call to an address that a network of its rules may hold
 * (named), or that is a frontend's; SLB_POLICY_DEFAULT where it does not concern
 * the call.
 */
__noinline __u64 slb_policy_decide(__u64 policy, const struct slb_frontend_key *key,
				   __u32 group, __u32 named, __u32 frontend)
{
	__u64 says;
	__u32 rule;

	if (!key)
		return SLB_POLICY_DEFAULT;
	says = policy_says(policy, key, group, named, frontend);
	rule = says >> 32;
	if (rule)
		policy_hit(policy, rule);
	if (SLB_POLICY_ACTION(says) == SLB_POLICY_AUDIT)
		policy_record(key, group, rule);
	return says;
}

#endif
