/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which of a cell's backends a call gets, in constant time. */
#ifndef SLICELB_CHOOSE_H
#define SLICELB_CHOOSE_H

#include "affinity.h"

static __always_inline __u64 live_sockets(__u32 backend)
{
	struct slb_backend_counters *c = bpf_map_lookup_elem(&backend_counters, &backend);
	__s64 live = c ? READ_ONCE(c->live) : 0;

	return live > 0 ? live : 0; /* below zero until a recount */
}

/*
 * The better of two. The second slot is one of another backend: its own slots lie
 * side by side, as many as its weight, so what is a weight away in a ring is not
 * among them where they are at most half; where they are more, they come last.
 */
static __always_inline __u32 least_backend(__u64 cell)
{
	__u32 base = SLB_CELL_BASE(cell), count = SLB_CELL_COUNT(cell);
	__u32 i = random_below(count), j;
	__u32 one = slot_at(base + i), two;
	__u32 weight = SLB_SLOT_WEIGHT(one);

	if (weight >= count)
		return SLB_SLOT_BACKEND(one);
	if (2 * weight <= count) {
		j = i + weight + random_below(count - 2 * weight + 1);
		if (j >= count)
			j -= count;
	} else {
		j = random_below(count - weight);
	}
	two = slot_at(base + j);
	if (live_sockets(SLB_SLOT_BACKEND(two)) * weight <
	    live_sockets(SLB_SLOT_BACKEND(one)) * SLB_SLOT_WEIGHT(two))
		one = two;
	return SLB_SLOT_BACKEND(one);
}

static __always_inline __u32 maglev_backend(__u64 cell, __u64 key)
{
	return SLB_SLOT_BACKEND(slot_at(SLB_CELL_BASE(cell) +
					(__u32)((__u64)SLB_HASH_KEY(key) * SLB_CELL_COUNT(cell) >> 32)));
}

/* A caller's key for Maglev: a group's is its name's, the same on every host. */
static __always_inline __u64 caller_hash(const struct slb_affinity_key *key)
{
	__u64 who = key->who >> 63 ? key->who >> 20 : key->who;

	return who + key->netns * 0xd1342543de82ef95ULL;
}

/* The choice of a cell that is not random, or has affinity. */
static __noinline __u32 steered_backend(const struct slb_decision *d, __u64 netns)
{
	struct slb_affinity_key key = { .netns = netns, .cell = d->cell };
	bool keeps = SLB_CELL_AFFINITY(d->word);
	__u32 index;

	if (keeps || SLB_CELL_ALGORITHM(d->word) == SLB_MAGLEV)
		key.who = caller_of(d);
	if (keeps) {
		index = affinity_kept(&key, d);
		if (index)
			return index;
	}
	switch (SLB_CELL_ALGORITHM(d->word)) {
	case SLB_LEAST:
		index = least_backend(d->word);
		break;
	case SLB_MAGLEV:
		index = maglev_backend(d->word, caller_hash(&key));
		break;
	default:
		index = random_backend(d->word);
	}
	if (keeps)
		affinity_keep(&key, d->word, index);
	return index;
}

static __always_inline __u32 choose_backend(struct bpf_sock_addr *ctx, const struct slb_decision *d)
{
	if (!SLB_CELL_STEERED(d->word))
		return random_backend(d->word);
	return steered_backend(d, SLB_CELL_AFFINITY(d->word) ? bpf_get_netns_cookie(ctx) : 0);
}

#endif
