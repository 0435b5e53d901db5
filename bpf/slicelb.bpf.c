//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The programs. Each SEC delegates to one inline function; IPv4 and IPv6 differ
 * only in how an address is taken from the context and put back.
 */
#include "anchor.h"
#include "sockops.h"
#include "strict.h"
#include "timing.h"
#include "udp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { CALL_ALLOWED = 1 };

/* In no map's type: named here so that bpf2go finds them. */
const struct {
	struct slb_cgroup_event event;
	struct slb_failure failure;
	enum slb_event_kind event_kind;
	enum slb_action action;
	enum slb_algorithm algorithm;
	enum slb_backend_state backend_state;
	enum slb_stat stat;
	enum slb_word_map word_map;
	struct slb_decision_event decision_event;
	enum slb_told told;
	enum slb_reason reason;
	enum slb_what what;
	enum slb_policy_head policy_head;
	enum slb_policy_action policy_action;
} *slb_types __attribute__((unused));

/* ---- addresses in and out of the context ---------------------------------- */

static __always_inline void take4(struct bpf_sock_addr *ctx, struct slb_frontend_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->addr.word_be[2] = bpf_htonl(0xffff);
	key->addr.word_be[3] = ctx->user_ip4;
	key->port_be = ctx->user_port;
	key->proto = ctx->protocol;
}

static __always_inline void take6(struct bpf_sock_addr *ctx, struct slb_frontend_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->addr.word_be[0] = ctx->user_ip6[0];
	key->addr.word_be[1] = ctx->user_ip6[1];
	key->addr.word_be[2] = ctx->user_ip6[2];
	key->addr.word_be[3] = ctx->user_ip6[3];
	key->port_be = ctx->user_port;
	key->proto = ctx->protocol;
}

static __always_inline void put4(struct bpf_sock_addr *ctx, const struct slb_addr *addr,
				 __u16 port_be)
{
	ctx->user_ip4 = addr->word_be[3];
	ctx->user_port = port_be;
}

static __always_inline void put6(struct bpf_sock_addr *ctx, const struct slb_addr *addr,
				 __u16 port_be)
{
	ctx->user_ip6[0] = addr->word_be[0];
	ctx->user_ip6[1] = addr->word_be[1];
	ctx->user_ip6[2] = addr->word_be[2];
	ctx->user_ip6[3] = addr->word_be[3];
	ctx->user_port = port_be;
}

/* ---- the unspecified address -------------------------------------------------- */

/*
 * After the hook, the kernel makes of 0.0.0.0 the address that the socket is bound
 * to, else 127.0.0.1, and of :: the loopback of the family that it speaks. Policy is
 * asked about what it will be, and the call is given that, so that it is no other:
 * a socket may be bound to a device, too, in ways that no program sees.
 */
static __always_inline bool unspecified(const struct slb_frontend_key *key)
{
	return !key->addr.word_be[3] && SLB_POLICY_BASE(policy_word) &&
	       (key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP);
}

static __always_inline void settle4(struct bpf_sock_addr *ctx, struct slb_frontend_key *key,
				    __u32 bound)
{
	key->addr.word_be[3] = bound ?: bpf_htonl(INADDR_LOOPBACK);
	ctx->user_ip4 = key->addr.word_be[3];
}

static __always_inline void settle6(struct bpf_sock_addr *ctx, struct slb_frontend_key *key)
{
	const struct bpf_sock *sk = ctx->sk;
	struct slb_addr *a = &key->addr;
	bool mapped = sk && sk->family == AF_INET6 && !sk->src_ip6[0] && !sk->src_ip6[1] &&
		      sk->src_ip6[2] == bpf_htonl(0xffff);
	bool any = !a->word_be[2];

	if (a->word_be[0] || a->word_be[1] || (!any && a->word_be[2] != bpf_htonl(0xffff)))
		return;
	if (any && !mapped) {
		a->word_be[3] = bpf_htonl(1);
	} else {
		a->word_be[2] = bpf_htonl(0xffff);
		a->word_be[3] = !any && mapped && sk->src_ip6[3] ? sk->src_ip6[3] :
								   bpf_htonl(INADDR_LOOPBACK);
	}
	put6(ctx, a, key->port_be);
}

/* ---- connect --------------------------------------------------------------- */

/* On SLB_TRANSLATE, *out is where the call goes. */
static __always_inline enum slb_verdict do_connect(struct bpf_sock_addr *ctx,
						   const struct slb_frontend_key *key,
						   struct slb_backend **out)
{
	struct slb_decision d = {};
	struct slb_origin *o;
	enum slb_verdict v;
	struct slb_backend *b;
	__u32 index;

	if (key->proto != IPPROTO_TCP && key->proto != IPPROTO_UDP)
		return SLB_UNTOUCHED;
	o = origin_of(ctx);
	if (!o && !filter_has(frontend_filter, &key->addr) && !policy_names(&key->addr))
		return SLB_UNTOUCHED;
	/* A program of a child cgroup has refused: nothing may change (D44). */
	if (bpf_get_retval() < 0)
		return SLB_UNTOUCHED;
	v = decide(key, &d);
	audited_event(ctx, key, &d);
	switch (v) {
	case SLB_UNTOUCHED:
		if (o)
			origin_forget(o);
		decision_event(ctx, key, &d, SLB_TOLD_PASSED, 0);
		return SLB_UNTOUCHED;
	case SLB_REJECT:
		/* The socket keeps its peer, if it has one, and so the peer's name. */
		refused_event(ctx, key, &d);
		reject(&d);
		return SLB_REJECT;
	default:
		break;
	}
	index = choose_backend(ctx, &d);
	b = backend_at(index);
	d.backend = index;
	if (!b || !backend_reachable(ctx, b)) {
		d.reason = b ? SLB_WHY_LOOPBACK : SLB_WHY_GONE;
		decision_event(ctx, key, &d, SLB_TOLD_REJECTED, 0);
		reject(&d);
		return SLB_REJECT;
	}
	origin_remember(ctx, o, key, &d, index, b);
	count(d.default_cell, d.group, d.child, SLB_COUNT_CONNECT);
	count_backend(index, SLB_COUNT_CONNECT);
	decision_event(ctx, key, &d, SLB_TOLD_TRANSLATED, 0);
	*out = b;
	return SLB_TRANSLATE;
}

SEC("cgroup/connect4")
int slb_connect4(struct bpf_sock_addr *ctx)
{
	struct slb_frontend_key key;
	struct slb_backend *b = NULL;
	enum slb_verdict v;

	take4(ctx, &key);
	if (unspecified(&key))
		settle4(ctx, &key, ctx->sk ? ctx->sk->src_ip4 : 0);
	v = do_connect(ctx, &key, &b);
	if (v == SLB_TRANSLATE && b)
		put4(ctx, &b->addr, b->port_be);
	return v == SLB_REJECT ? 0 : CALL_ALLOWED;
}

SEC("cgroup/connect6")
int slb_connect6(struct bpf_sock_addr *ctx)
{
	struct slb_frontend_key key;
	struct slb_backend *b = NULL;
	enum slb_verdict v;

	take6(ctx, &key);
	if (unspecified(&key))
		settle6(ctx, &key);
	v = do_connect(ctx, &key, &b);
	if (v == SLB_TRANSLATE && b)
		put6(ctx, &b->addr, b->port_be);
	return v == SLB_REJECT ? 0 : CALL_ALLOWED;
}

/* ---- sendmsg ---------------------------------------------------------------- */

static __always_inline enum slb_verdict do_sendmsg(struct bpf_sock_addr *ctx,
						   const struct slb_frontend_key *key,
						   struct slb_backend **out)
{
	struct slb_decision d = { .what = SLB_WHAT_SEND };
	struct slb_origin *o;
	enum slb_verdict v;
	struct slb_backend *b;

	if (key->proto != IPPROTO_UDP ||
	    (!filter_has(frontend_filter, &key->addr) && !policy_names(&key->addr)) ||
	    bpf_get_retval() < 0)
		return SLB_UNTOUCHED;

	/*
	 * A v4-mapped socket's plain send comes here with its peer's address, which
	 * connect has chosen (P8): a backend that is also a frontend is not asked again.
	 */
	o = origin_of_peer(ctx);
	if (o && o->backend_port_be == key->port_be && addr_equal(&o->backend, &key->addr))
		return SLB_UNTOUCHED;

	v = decide(key, &d);
	audited_event(ctx, key, &d);
	/* A peer that became a VIP after connect stays what it was; policy may deny it. */
	if (v != SLB_UNTOUCHED && !d.denied && peer_is(ctx, &key->addr, key->port_be))
		return SLB_UNTOUCHED;
	switch (v) {
	case SLB_UNTOUCHED:
		decision_event(ctx, key, &d, SLB_TOLD_PASSED, 0);
		return SLB_UNTOUCHED;
	case SLB_REJECT:
		refused_event(ctx, key, &d);
		reject(&d);
		return SLB_REJECT;
	default:
		break;
	}
	b = o ? udp_own(o, &d) : NULL;
	if (b) {
		o->elsewhere = 0;
		*out = b;
		return SLB_TRANSLATE;
	}
	b = udp_choose(ctx, key, &d);
	if (!b) {
		decision_event(ctx, key, &d, SLB_TOLD_REJECTED, 0);
		reject(&d);
		return SLB_REJECT;
	}
	if (o && o->backend_port_be == b->port_be && addr_equal(&o->backend, &b->addr))
		o->elsewhere = 1;
	*out = b;
	return SLB_TRANSLATE;
}

SEC("cgroup/sendmsg4")
int slb_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct slb_frontend_key key;
	struct slb_backend *b = NULL;
	enum slb_verdict v;

	take4(ctx, &key);
	if (unspecified(&key))
		settle4(ctx, &key, ctx->msg_src_ip4);
	v = do_sendmsg(ctx, &key, &b);
	if (v == SLB_TRANSLATE && b)
		put4(ctx, &b->addr, b->port_be);
	return v == SLB_REJECT ? 0 : CALL_ALLOWED;
}

SEC("cgroup/sendmsg6")
int slb_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct slb_frontend_key key;
	struct slb_backend *b = NULL;
	enum slb_verdict v;

	take6(ctx, &key);
	if (unspecified(&key))
		settle6(ctx, &key);
	v = do_sendmsg(ctx, &key, &b);
	if (v == SLB_TRANSLATE && b)
		put6(ctx, &b->addr, b->port_be);
	return v == SLB_REJECT ? 0 : CALL_ALLOWED;
}

/* ---- recvmsg: the sender's name ---------------------------------------------- */

static __always_inline bool do_recvmsg(struct bpf_sock_addr *ctx,
				       const struct slb_frontend_key *from, struct slb_addr *vip,
				       __u16 *vip_port_be)
{
	struct slb_udp_reverse_key key;
	struct slb_udp_reverse *r;
	struct slb_origin *o;
	bool backend;

	if (from->proto != IPPROTO_UDP)
		return false;
	/*
	 * A socket that is connected hears from its peer alone. The peer's name is
	 * what connect was given, unless the socket has asked the same backend by
	 * another VIP's name since: then that is the last word. A peer that connect
	 * was given without a VIP has its own name, whatever was sent before (D7).
	 */
	o = origin_of_peer(ctx);
	if (!o && peer_is(ctx, &from->addr, from->port_be))
		return false;
	backend = (!o || o->elsewhere) && filter_has(backend_filter, &from->addr);
	if (backend) {
		udp_reverse_key(&key, bpf_get_socket_cookie(ctx), &from->addr, from->port_be);
		r = bpf_map_lookup_elem(&udp_reverse, &key);
		if (r) {
			__u32 frontend = r->frontend, gen = r->frontend_gen;

			*vip = r->vip;
			*vip_port_be = r->vip_port_be;
			if (udp_reverse_is(&key, r)) {
				if (frontend_alive(frontend, gen))
					return true;
				count_stat(SLB_STAT_STALE_FRONTEND);
				backend = false;
			}
		}
	}
	/* The backend may be gone from the configuration and still be this socket's peer. */
	if (o && origin_names(o, from)) {
		*vip = o->vip;
		*vip_port_be = o->vip_port_be;
		return true;
	}
	/* Evicted, or never asked for by a VIP's name: the two look alike here. */
	if (backend)
		count_stat(SLB_STAT_REPLY_UNKNOWN);
	return false;
}

SEC("cgroup/recvmsg4")
int slb_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct slb_frontend_key from;
	struct slb_addr vip;
	__u16 port_be;

	take4(ctx, &from);
	if (do_recvmsg(ctx, &from, &vip, &port_be))
		put4(ctx, &vip, port_be);
	return CALL_ALLOWED;
}

SEC("cgroup/recvmsg6")
int slb_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct slb_frontend_key from;
	struct slb_addr vip;
	__u16 port_be;

	take6(ctx, &from);
	if (do_recvmsg(ctx, &from, &vip, &port_be))
		put6(ctx, &vip, port_be);
	return CALL_ALLOWED;
}

/* ---- getpeername ---------------------------------------------------------------- */

SEC("cgroup/getpeername4")
int slb_getpeername4(struct bpf_sock_addr *ctx)
{
	struct slb_origin *o = origin_of(ctx);
	struct slb_frontend_key peer;

	if (!o)
		return CALL_ALLOWED;
	take4(ctx, &peer);
	if (origin_names(o, &peer))
		put4(ctx, &o->vip, o->vip_port_be);
	return CALL_ALLOWED;
}

SEC("cgroup/getpeername6")
int slb_getpeername6(struct bpf_sock_addr *ctx)
{
	struct slb_origin *o = origin_of(ctx);
	struct slb_frontend_key peer;

	if (!o)
		return CALL_ALLOWED;
	take6(ctx, &peer);
	if (origin_names(o, &peer))
		put6(ctx, &o->vip, o->vip_port_be);
	return CALL_ALLOWED;
}

/* ---- TCP sockets, as the kernel goes on with them ------------------------------- */

SEC("sockops")
int slb_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (time_until)
			break;
		return CALL_ALLOWED;
	case BPF_SOCK_OPS_STATE_CB:
		if (sockops_left_syn_sent(ctx))
			break;
		return CALL_ALLOWED;
	default:
		return CALL_ALLOWED;
	}
	/* Loaded once: the verifier takes each load for another pointer. */
	sk = ctx->sk;
	if (!sk)
		return CALL_ALLOWED;
	if (ctx->op == BPF_SOCK_OPS_STATE_CB)
		sockops_given_up(ctx, sk);
	else if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		sockops_established(ctx, sk);
	else
		sockops_connect(ctx, sk);
	return CALL_ALLOWED;
}

/* ---- the last close, and the recount --------------------------------------------- */

SEC("cgroup/sock_release")
int slb_sock_release(struct bpf_sock *sk)
{
	struct slb_origin *o = origin_at(sk);

	if (o)
		live_leave(o);
	return CALL_ALLOWED;
}

SEC("iter/bpf_sk_storage_map")
int slb_recount(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	return live_recounted(ctx->value);
}

/* ---- sockets of strict groups -------------------------------------------------- */

SEC("cgroup/sock_create")
int slb_sock_create(struct bpf_sock *sk)
{
	return sock_allowed(sk) ? CALL_ALLOWED : 0;
}

/* ---- cgroups ---------------------------------------------------------------------- */

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(slb_cgroup_mkdir, struct cgroup *cgrp)
{
	return anchor_made(cgrp);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(slb_cgroup_rmdir, struct cgroup *cgrp)
{
	return anchor_gone(cgrp);
}

/*
 * Run by the reconciler: stores a word into an existing entry in place, which a
 * map update cannot do (it replaces the element).
 */
SEC("syscall")
int slb_set_word(struct slb_word_store *args)
{
	struct slb_expect_key expect_key;
	struct slb_pattern_key pattern_key;
	struct slb_pattern *pattern;
	__u64 cgroup, *word, old;

	switch (args->map) {
	case SLB_WORD_CGROUP:
		cgroup = args->cgroup;
		word = bpf_map_lookup_elem(&cgroups, &cgroup);
		if (!word)
			return -ENOENT;
		/*
		 * The kernel deletes and inserts here too, of its own accord: the element
		 * may be another cgroup's between look-up and store.
		 */
		old = READ_ONCE(*word);
		if (!SLB_CGROUP_VALID(old, cgroup) ||
		    __sync_val_compare_and_swap(word, old, args->word) != old)
			return -ENOENT;
		return 0;
	case SLB_WORD_EXPECT:
		expect_key = args->expect;
		word = bpf_map_lookup_elem(&expect, &expect_key);
		break;
	case SLB_WORD_PATTERN:
		pattern_key = args->pattern;
		pattern = bpf_map_lookup_elem(&expect_patterns, &pattern_key);
		word = pattern ? &pattern->rule : NULL;
		break;
	default:
		return -EINVAL;
	}
	if (!word)
		return -ENOENT;
	WRITE_ONCE(*word, args->word);
	return 0;
}
