/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Affinity: a caller, which is a group (or a split child) in a network namespace,
 * keeps the backend that it was given for as long as it calls often enough and
 * the backend takes new connections.
 */
#ifndef SLICELB_AFFINITY_H
#define SLICELB_AFFINITY_H

#include "backend.h"

/* Who calls, whatever index the group has. */
static __always_inline __u64 caller_of(const struct slb_decision *d)
{
	__u32 group = d->group;
	__u64 *word;

	if (d->split)
		return d->member;
	word = bpf_map_lookup_elem(&groups, &group);
	return SLB_WHO_GROUP(word ? SLB_GROUP_HASH(READ_ONCE(*word)) : 0, group);
}

/*
 * Can the caller reach it? Else it is not kept: a pool may have others
 * (backend_reachable).
 */
static __always_inline bool affinity_reaches(const struct slb_affinity_key *key,
					     const struct slb_backend *b)
{
	return !(b->flags & SLB_BACKEND_LOOPBACK) || key->netns == host_netns_cookie;
}

/* Does the backend still take new connections, of this default cell and this caller? */
static __always_inline bool affinity_alive(const struct slb_affinity_key *key, __u32 index,
					   __u32 gen, __u32 of)
{
	__u64 *word = bpf_map_lookup_elem(&backend_cells, &index), w;
	struct slb_backend *b = backend_at(index);

	if (!word || !b)
		return false;
	w = READ_ONCE(*word);
	return SLB_BACKEND_GEN(w) == gen && SLB_BACKEND_STATE(w) == SLB_BACKEND_ACTIVE &&
	       b->cell == of && affinity_reaches(key, b);
}

static __always_inline __u64 affinity_word(__u32 cell)
{
	__u64 *word = bpf_map_lookup_elem(&cell_affinity, &cell);

	return word ? READ_ONCE(*word) : 0;
}

/* The backend that the caller keeps, or 0. */
static __always_inline __u32 affinity_kept(const struct slb_affinity_key *key,
					   const struct slb_decision *d)
{
	struct slb_affinity *a = bpf_map_lookup_elem(&affinity, key);
	__u64 rule, used;
	__s64 limit, idle;
	__u32 index, gen;
	__u64 word;

	if (!a)
		return 0;
	rule = affinity_word(key->cell);
	limit = SLB_AFFINITY_SECONDS(rule) * 1000000000LL;
	index = a->backend;
	gen = a->backend_gen;
	word = a->word;
	used = READ_ONCE(a->used_ns);
	/* Read after used; another CPU that has just called may be ahead nevertheless. */
	idle = bpf_ktime_get_ns() - used;
	barrier(); /* its key last: see udp.h */
	if (idle >= limit || (SLB_AFFINITY_STRICT(rule) && word != d->word) ||
	    a->layout != SLB_LAYOUT || READ_ONCE(a->key.who) != key->who ||
	    a->key.netns != key->netns || a->key.cell != key->cell)
		return 0;
	if (!affinity_alive(key, index, gen, d->default_cell))
		return 0;
	/* Rarely, so that callers on several CPUs do not write to one line all the time. */
	if (idle > limit / 16)
		WRITE_ONCE(a->used_ns, used + idle);
	return index;
}

static __always_inline void affinity_keep(const struct slb_affinity_key *key, __u64 cell, __u32 index)
{
	struct slb_backend *b = backend_at(index);
	struct slb_affinity a = {};

	if (!b || !affinity_reaches(key, b))
		return;
	a.key = *key;
	a.used_ns = bpf_ktime_get_ns();
	a.word = cell;
	a.backend = index;
	a.backend_gen = b->generation;
	a.layout = SLB_LAYOUT;
	bpf_map_update_elem(&affinity, key, &a, BPF_ANY);
}

#endif
