/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Telling of decisions. Refusals and audits are told always, within the group's
 * budget; everything else only while somebody watches and wants it. With nobody
 * watching and nothing refused, a decision costs one load of a global word.
 */
#ifndef SLICELB_EVENT_H
#define SLICELB_EVENT_H

#include "decide.h"

static __always_inline const char *parent_name(struct kernfs_node *kn)
{
	struct kernfs_node___renamed *renamed = (void *)kn;

	if (bpf_core_field_exists(renamed->__parent))
		return BPF_CORE_READ(renamed, __parent, name);
	return BPF_CORE_READ(kn, parent, name);
}

/* May this group say one more thing that nobody asked for? If not, it is counted. */
static __always_inline bool budget_has(__u32 group, __u64 now)
{
	struct slb_tell_budget *b = bpf_map_lookup_elem(&tell_budgets, &group);
	__u64 window = now >> SLB_TELL_WINDOW_SHIFT << 32, w;

	if (!b)
		return false;
	w = READ_ONCE(b->window);
	if (w >> 32 != window >> 32 && __sync_val_compare_and_swap(&b->window, w, window | 1) == w)
		return true;
	if ((__u32)__sync_fetch_and_add(&b->window, 1) < SLB_TELL_BURST)
		return true;
	__sync_fetch_and_add(&b->suppressed, 1);
	return false;
}

/* Does a watcher want this? A lease that has run out is taken away. */
static __always_inline bool watched(const struct slb_decision *d, enum slb_told told, __u64 now)
{
	__u64 until = watch_until, group = watch_group, cells = watch_cells;

	if (!until)
		return false;
	if (now > until) {
		__sync_val_compare_and_swap(&watch_until, until, 0);
		return false;
	}
	if (!(watch_told >> told & 1))
		return false;
	if (group != SLB_WATCH_ANY_GROUP && group != d->group)
		return false;
	return !cells || (__u32)cells == d->default_cell || (__u32)(cells >> 32) == d->default_cell;
}

/* Counts a decision that found the ring full. Exact, also where one program interrupts another. */
static __always_inline int decision_lost(void)
{
	__u32 stat = SLB_STAT_DECISIONS_LOST;
	__u64 *n = bpf_map_lookup_elem(&stats, &stat);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}

/*
 * ctx is the hook's, of whichever kind: it has a socket and a network namespace. The
 * daemon looks by itself while somebody watches: waking it up costs more than
 * the event.
 *
 * A helper reads the way to the directory. Of each field that is read through a trusted
 * pointer the verifier looks for a type by its name among all of the kernel's (Linux
 * 6.18, btf_nested_type_is_trusted()), for each way that leads here anew: that was a
 * third of the time to load.
 */
static __noinline int tell(void *ctx, const struct slb_frontend_key *key,
			   const struct slb_decision *d, enum slb_told told, __u32 rule)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct slb_decision_event *e;
	struct slb_backend *b = NULL;
	struct kernfs_node *kn;
	__u64 now = bpf_ktime_get_ns(), flags = BPF_RB_NO_WAKEUP, ids;

	if (!key || !d)
		return 0;
	if (!watched(d, told, now)) {
		if (told < SLB_TOLD_REJECTED || !budget_has(d->group, now))
			return 0;
		flags = 0;
	}
	e = bpf_ringbuf_reserve(&decisions, sizeof(*e), 0);
	if (!e)
		return decision_lost();
	kn = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
	e->time_ns = now;
	e->cgroup = BPF_CORE_READ(kn, id);
	e->member = d->member;
	e->netns = bpf_get_netns_cookie(ctx);
	e->socket = bpf_get_socket_cookie(ctx);
	e->addr = key->addr;
	e->port_be = key->port_be;
	e->proto = key->proto;
	e->what = d->what;
	e->told = told;
	e->reason = d->reason;
	ids = bpf_get_current_pid_tgid();
	e->pid = ids;
	e->tgid = ids >> 32;
	e->group = d->group;
	e->default_cell = d->default_cell;
	e->cell = d->cell;
	e->rule = rule;
	e->took_us = 0;
	e->backend_index = d->backend;
	if (d->backend)
		b = bpf_map_lookup_elem(&backends, &d->backend);
	if (b) {
		e->backend = b->addr;
		e->backend_port_be = b->port_be;
	} else {
		__builtin_memset(&e->backend, 0, sizeof(e->backend));
		e->backend_port_be = 0;
	}
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	if (bpf_probe_read_kernel_str(e->dir, sizeof(e->dir), BPF_CORE_READ(kn, name)) < 0)
		e->dir[0] = 0;
	if (bpf_probe_read_kernel_str(e->parent, sizeof(e->parent), parent_name(kn)) < 0)
		e->parent[0] = 0;
	bpf_ringbuf_submit(e, flags);
	return 0;
}

/*
 * Tells of a decision, where somebody is to hear of it: d->reason says why it
 * was so; rule is the policy's, 0 where none decided.
 */
static __always_inline void decision_event(void *ctx,
					   const struct slb_frontend_key *key,
					   const struct slb_decision *d, enum slb_told told,
					   __u32 rule)
{
	if ((watch_until || told >= SLB_TOLD_REJECTED) && d->reason)
		tell(ctx, key, d, told, rule);
}

/* A call that is refused: by policy, or for want of a backend. */
static __always_inline void refused_event(struct bpf_sock_addr *ctx,
					  const struct slb_frontend_key *key,
					  const struct slb_decision *d)
{
	decision_event(ctx, key, d, d->denied ? SLB_TOLD_DENIED : SLB_TOLD_REJECTED,
		       d->denied ? d->rule : 0);
}

/* A call that a rule with "audit" has let through, whatever becomes of it. */
static __always_inline void audited_event(struct bpf_sock_addr *ctx,
					  const struct slb_frontend_key *key,
					  struct slb_decision *d)
{
	__u32 reason = d->reason;

	if (!d->audited)
		return;
	d->reason = SLB_WHY_RULE;
	decision_event(ctx, key, d, SLB_TOLD_AUDITED, d->rule);
	d->reason = reason;
}

#endif
