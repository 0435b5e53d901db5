/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_COUNT_H
#define SLICELB_COUNT_H

#include "maps.h"

/* What a call came to; the order of struct slb_counters. */
enum slb_count {
	SLB_COUNT_CONNECT,
	SLB_COUNT_FLOW,
	SLB_COUNT_PASSED,
	SLB_COUNT_REJECTED,
	SLB_COUNT_DENIED,
};

static __always_inline void count_stat(enum slb_stat stat)
{
	__u32 key = stat;
	__u64 *n = bpf_map_lookup_elem(&stats, &key);

	if (n)
		(*n)++;
}

static __always_inline void count_in(struct slb_counters *c, enum slb_count what)
{
	switch (what) {
	case SLB_COUNT_CONNECT:
		c->connects++;
		break;
	case SLB_COUNT_FLOW:
		c->flows++;
		break;
	case SLB_COUNT_PASSED:
		c->passed++;
		break;
	case SLB_COUNT_REJECTED:
		c->rejected++;
		break;
	case SLB_COUNT_DENIED:
		c->denied++;
		break;
	}
}

/*
 * The counters of a pair, claimed at its first use. A hash map would do, at the
 * price of one more look-up for each translated call; an array's is inlined.
 */
static __always_inline struct slb_counters *pair_at(__u32 cell, __u32 group)
{
	__u64 pair = SLB_PAIR(cell, group), owner;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < SLB_PAIR_PROBES; i++) {
		__u32 index = (SLB_PAIR_HOME(pair) + i) & (SLB_PAIRS - 1);
		__u64 *key = bpf_map_lookup_elem(&pair_keys, &index);

		if (!key)
			return NULL;
		owner = READ_ONCE(*key);
		if (!owner)
			owner = __sync_val_compare_and_swap(key, 0, pair);
		if (!owner || owner == pair)
			return bpf_map_lookup_elem(&pair_counters, &index);
	}
	return NULL;
}

static __always_inline void count_pair(__u32 cell, __u32 group, enum slb_count what)
{
	struct slb_counters *c = pair_at(cell, group);

	if (c)
		count_in(c, what);
	else
		count_stat(SLB_STAT_PAIRS_FULL);
}

/*
 * Few groups are counted by child: the others pay one branch. The function is
 * global, so that the verifier walks through it once.
 */
__noinline int slb_count_child(__u32 cell, __u32 child, __u32 what)
{
	count_pair(cell, child, what);
	return 0;
}

/*
 * Counts by cell, and by cell and group. What finds no room among the pairs is
 * the difference to the cell's own count. child is SLB_PAIR_CHILD of a split child
 * that has counters of its own, else 0.
 */
static __noinline void count(__u32 cell, __u32 group, __u32 child, enum slb_count what)
{
	struct slb_counters *c = bpf_map_lookup_elem(&cell_counters, &cell);

	if (c)
		count_in(c, what);
	count_pair(cell, group, what);
	if (child)
		slb_count_child(cell, child, what);
}

static __always_inline void count_backend(__u32 backend, enum slb_count what)
{
	struct slb_backend_counters *c = bpf_map_lookup_elem(&backend_counters, &backend);

	if (!c)
		return;
	if (what == SLB_COUNT_FLOW)
		__sync_fetch_and_add(&c->flows, 1);
	else
		__sync_fetch_and_add(&c->connects, 1);
}

#endif
