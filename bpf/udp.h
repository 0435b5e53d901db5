/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Datagrams. A connected socket's to its own VIP go to its peer (udp_own).
 *
 * Unconnected UDP. A socket may use several VIPs, so what it remembers is keyed
 * by its cookie: which backend a VIP means (udp_choice), and which VIP a backend
 * means (udp_reverse). Elements of an LRU are reused at will, under a reader
 * too, so each value repeats its key, as its first bytes, and is checked after it
 * was read. A reader that saw anything of the new value sees the new key then. A
 * CPU that reorders loads or stores (arm64) can slip through, by a few
 * instructions: what it reads must name a living backend of this VIP, or a living
 * frontend, in any case.
 */
#ifndef SLICELB_UDP_H
#define SLICELB_UDP_H

#include "event.h"
#include "origin.h"

#define SLB_UDP_TRIES 4

/* A backend of d's VIP that may keep what it has, and its word; else NULL. */
static __always_inline struct slb_backend *udp_usable(__u32 index, __u32 gen,
						      const struct slb_decision *d, __u64 *w)
{
	struct slb_backend *b = backend_at(index);
	__u64 *word = bpf_map_lookup_elem(&backend_cells, &index);

	if (!word)
		return NULL;
	*w = READ_ONCE(*word);
	if (SLB_BACKEND_GEN(*w) != gen || (SLB_BACKEND_STATE(*w) != SLB_BACKEND_ACTIVE &&
					   SLB_BACKEND_STATE(*w) != SLB_BACKEND_DRAINING))
		return NULL;
	/* The cell's index may be another VIP's by now, and the backend still its former one's. */
	return b && b->cell == d->default_cell ? b : NULL;
}

/*
 * The backend that a socket is connected to, for a datagram to the frontend that led
 * there: the kernel drops what another backend answers.
 */
static __always_inline struct slb_backend *udp_own(const struct slb_origin *o,
						   const struct slb_decision *d)
{
	__u64 w;

	if (o->frontend != d->frontend || o->frontend_gen != d->frontend_gen)
		return NULL;
	return udp_usable(o->backend_index, o->backend_gen, d, &w);
}

/* The backend that this flow has, if it may keep it; else 0. */
static __always_inline __u32 udp_kept(const struct slb_udp_choice_key *key,
				      const struct slb_decision *d)
{
	struct slb_udp_choice *c = bpf_map_lookup_elem(&udp_choice, key);
	__u32 index, gen, cell;
	__u64 w, chosen_by;

	if (!c)
		return 0;
	index = c->backend;
	gen = c->backend_gen;
	cell = c->cell;
	chosen_by = c->word;
	barrier();
	if (cell != d->cell || c->layout != SLB_LAYOUT ||
	    c->key.cookie != key->cookie || c->key.frontend != key->frontend ||
	    c->key.frontend_gen != key->frontend_gen)
		return 0;
	if (!udp_usable(index, gen, d, &w))
		return 0;
	/* ACTIVE may be in another pool than this cell's; what drains was in this one. */
	if (chosen_by != d->word && SLB_BACKEND_STATE(w) == SLB_BACKEND_ACTIVE &&
	    SLB_AFFINITY_STRICT(affinity_word(d->cell)))
		return 0;
	return index;
}

static __always_inline bool udp_reverse_is(const struct slb_udp_reverse_key *key,
					   const struct slb_udp_reverse *r)
{
	barrier();
	return r->key.cookie == key->cookie && r->key.port_be == key->port_be &&
	       r->layout == SLB_LAYOUT && addr_equal(&r->key.addr, &key->addr);
}

/* The frontend that this socket knows a backend as, and its generation; 0 = none. */
static __always_inline __u32 udp_name(const struct slb_udp_reverse_key *key, __u32 *gen)
{
	struct slb_udp_reverse *r = bpf_map_lookup_elem(&udp_reverse, key);
	__u32 frontend;

	if (!r)
		return 0;
	frontend = r->frontend;
	*gen = r->frontend_gen;
	return udp_reverse_is(key, r) ? frontend : 0;
}

static __always_inline void udp_reverse_key(struct slb_udp_reverse_key *key, __u64 cookie,
					    const struct slb_addr *addr, __u16 port_be)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = cookie;
	key->addr = *addr;
	key->port_be = port_be;
}

/*
 * The backend for a datagram to a VIP: the one this flow has, else a new choice,
 * preferably one that this socket does not know under another VIP's name; if
 * there is none, the last VIP wins.
 */
static __always_inline struct slb_backend *udp_choose(struct bpf_sock_addr *ctx,
						      const struct slb_frontend_key *key,
						      struct slb_decision *d)
{
	struct slb_udp_choice choice = {};
	struct slb_udp_reverse reverse = {};
	struct slb_backend *b = NULL;
	__u32 index, name = 0, gen = 0;
	bool kept;

	choice.key.cookie = bpf_get_socket_cookie(ctx);
	choice.key.frontend = d->frontend;
	choice.key.frontend_gen = d->frontend_gen;

	index = udp_kept(&choice.key, d);
	kept = index;
	if (kept) {
		b = backend_at(index);
		if (!b) {
			d->reason = SLB_WHY_GONE;
			return NULL;
		}
		udp_reverse_key(&reverse.key, choice.key.cookie, &b->addr, b->port_be);
		name = udp_name(&reverse.key, &gen);
	} else {
		/* Whom a caller keeps, or its key leads to, only at first. */
		index = choose_backend(ctx, d);
		for (int i = 0; i < SLB_UDP_TRIES; i++) {
			if (i)
				index = random_backend(d->word);
			b = backend_at(index);
			if (!b) {
				d->reason = SLB_WHY_GONE;
				return NULL;
			}
			udp_reverse_key(&reverse.key, choice.key.cookie, &b->addr, b->port_be);
			name = udp_name(&reverse.key, &gen);
			if (!name || name == d->frontend || !frontend_alive(name, gen))
				break;
		}
	}
	if (!b || !backend_reachable(ctx, b)) {
		d->reason = b ? SLB_WHY_LOOPBACK : SLB_WHY_GONE;
		return NULL;
	}

	if (name != d->frontend || gen != d->frontend_gen) {
		reverse.vip = key->addr;
		reverse.vip_port_be = key->port_be;
		reverse.layout = SLB_LAYOUT;
		reverse.frontend = d->frontend;
		reverse.frontend_gen = d->frontend_gen;
		if (bpf_map_update_elem(&udp_reverse, &reverse.key, &reverse, BPF_ANY))
			count_stat(SLB_STAT_STORAGE_FAILED);
	}
	if (!kept) {
		choice.backend = index;
		choice.backend_gen = b->generation;
		choice.cell = d->cell;
		choice.word = d->word;
		choice.layout = SLB_LAYOUT;
		bpf_map_update_elem(&udp_choice, &choice.key, &choice, BPF_ANY);
		count(d->default_cell, d->group, d->child, SLB_COUNT_FLOW);
		count_backend(index, SLB_COUNT_FLOW);
		d->backend = index;
		decision_event(ctx, key, d, SLB_TOLD_TRANSLATED, 0);
	}
	return b;
}

#endif
