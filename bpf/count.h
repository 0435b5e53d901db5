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
	}
}

/*
 * Counts by cell, and by cell and group. The pair is made at its first use; once
 * the table is full, what has no pair is the difference to the cell's own count.
 */
static __always_inline void count(__u32 cell, __u32 group, enum slb_count what)
{
	struct slb_view_key pair = { .cell = cell, .group = group };
	struct slb_counters *c;

	c = bpf_map_lookup_elem(&cell_counters, &cell);
	if (c)
		count_in(c, what);

	c = bpf_map_lookup_elem(&pair_counters, &pair);
	if (!c) {
		struct slb_counters zero = {};

		bpf_map_update_elem(&pair_counters, &pair, &zero, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&pair_counters, &pair);
		if (!c) {
			count_stat(SLB_STAT_PAIRS_FULL);
			return;
		}
	}
	count_in(c, what);
}

static __always_inline void count_backend(__u32 backend, enum slb_count what)
{
	struct slb_backend_counters *c = bpf_map_lookup_elem(&backend_counters, &backend);

	if (!c)
		return;
	if (what == SLB_COUNT_FLOW)
		c->flows++;
	else
		c->connects++;
}

#endif
