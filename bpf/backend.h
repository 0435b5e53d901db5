/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_BACKEND_H
#define SLICELB_BACKEND_H

#include "decide.h"

/*
 * A slot of a cell. The region that its base and count name stays as it is until a
 * grace period after the cell's word has changed.
 */
static __always_inline __u32 slot_at(__u32 slot)
{
	__u32 elem = slot / SLB_SLOTS_PER_ELEM;
	struct slb_slots *s = bpf_map_lookup_elem(&slots, &elem);

	return s ? s->backend[slot % SLB_SLOTS_PER_ELEM] : 0;
}

/* A number below n at random. */
static __always_inline __u32 random_below(__u32 n)
{
	return (__u64)bpf_get_prandom_u32() * n >> 32;
}

/* Weights are numbers of slots. */
static __always_inline __u32 random_backend(__u64 cell)
{
	return SLB_SLOT_BACKEND(slot_at(SLB_CELL_BASE(cell) + random_below(SLB_CELL_COUNT(cell))));
}

static __always_inline struct slb_backend *backend_at(__u32 index)
{
	return index ? bpf_map_lookup_elem(&backends, &index) : NULL;
}

/*
 * A loopback backend means the daemon's loopback. A caller in another network
 * namespace would reach its own: it gets EHOSTUNREACH instead (D29).
 */
static __always_inline bool backend_reachable(struct bpf_sock_addr *ctx,
					      const struct slb_backend *b)
{
	if (!(b->flags & SLB_BACKEND_LOOPBACK) ||
	    bpf_get_netns_cookie(ctx) == host_netns_cookie)
		return true;
	count_stat(SLB_STAT_LOOPBACK_NETNS);
	return false;
}

#endif
