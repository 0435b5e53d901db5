/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel maps anchors. cgroup_mkdir fires before the new directory becomes
 * visible (kernfs_activate comes later in cgroup_mkdir(), kernel/cgroup/cgroup.c),
 * so what it inserts is there before anything can run in the cgroup.
 *
 * The configuration is an automaton over directory names: a mapped cgroup's word
 * holds a node; {node, name} is looked up in expect, then among the node's
 * one-star patterns, then its rule for every other name.
 */
#ifndef SLICELB_ANCHOR_H
#define SLICELB_ANCHOR_H

#include "count.h"

static __always_inline bool pattern_matches(const struct slb_pattern *p,
					    const struct slb_expect_key *key)
{
	__u32 len = key->name_len, prefix = p->prefix_len, suffix = p->suffix_len;
	__u32 start;

	if (prefix + suffix > len || len >= SLB_COMPONENT_LEN)
		return false;
	for (__u32 i = 0; i < SLB_COMPONENT_LEN; i++) {
		if (i >= prefix)
			break;
		if (p->prefix[i] != key->name[i])
			return false;
	}
	start = len - suffix;
	for (__u32 i = 0; i < SLB_COMPONENT_LEN; i++) {
		if (i >= suffix)
			break;
		if (p->suffix[i] != key->name[(start + i) & (SLB_COMPONENT_LEN - 1)])
			return false;
	}
	return true;
}

/* bpf_loop callback: the key lies in scratch, *rule is what it finds. */
static long match_pattern(__u32 ordinal, __u64 *rule)
{
	__u32 zero = 0;
	struct slb_expect_key *key = bpf_map_lookup_elem(&scratch, &zero);
	struct slb_pattern_key pk = { .ordinal = ordinal };
	struct slb_pattern *p;

	if (!key)
		return 1;
	pk.node = key->node;
	p = bpf_map_lookup_elem(&expect_patterns, &pk);
	if (!p)
		return 1;
	if (!pattern_matches(p, key))
		return 0;
	*rule = READ_ONCE(p->rule);
	return 1;
}

/* The rule for a directory of this name below a cgroup with this node; 0 = none. */
static __always_inline __u64 expected(__u32 node, const char *name)
{
	__u32 zero = 0;
	struct slb_expect_key *key = bpf_map_lookup_elem(&scratch, &zero);
	__u64 *rule, matched = 0;
	long len;

	if (!key)
		return 0;
	__builtin_memset(key, 0, sizeof(*key));
	key->node = node;
	len = bpf_probe_read_kernel_str(key->name, sizeof(key->name), name);
	if (len <= 1)
		return 0;
	key->name_len = len - 1;
	rule = bpf_map_lookup_elem(&expect, key);
	if (rule)
		return READ_ONCE(*rule);

	bpf_loop(SLB_PATTERNS_PER_NODE, match_pattern, &matched, 0);
	if (matched)
		return matched;

	__builtin_memset(key->name, 0, sizeof(key->name));
	key->name_len = 0;
	rule = bpf_map_lookup_elem(&expect, key);
	return rule ? READ_ONCE(*rule) : 0;
}

static __always_inline __u64 parent_id(struct kernfs_node *kn)
{
	struct kernfs_node___renamed *renamed = (void *)kn;

	if (bpf_core_field_exists(renamed->__parent))
		return BPF_CORE_READ(renamed, __parent, id);
	return BPF_CORE_READ(kn, parent, id);
}

/* A hint for user space to look; losing one is counted, and makes it look everywhere. */
static __always_inline void hint(enum slb_event_kind kind, __u64 id, __u64 parent, bool mapped)
{
	struct slb_cgroup_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count_stat(SLB_STAT_EVENTS_LOST);
		return;
	}
	e->time_ns = bpf_ktime_get_ns();
	e->id = id;
	e->parent = parent;
	e->kind = kind;
	e->mapped = mapped;
	bpf_ringbuf_submit(e, 0);
}

/*
 * Who was delegated a cgroup may make any number of directories in it. They must not
 * take the room of those that root makes, whose callers would be in a wrong group: a
 * part of the table is root's. The uid is that of the initial user namespace, so root
 * of another one is not root here.
 */
static __always_inline bool has_room(void)
{
	return (__u32)bpf_get_current_uid_gid() == 0 || READ_ONCE(cgroup_room) > 0;
}

static __always_inline int anchor_made(struct cgroup *cgrp)
{
	struct kernfs_node *kn = cgrp->kn;
	__u64 id = kn->id, parent = parent_id(kn);
	__u64 *word = bpf_map_lookup_elem(&cgroups, &parent);
	__u64 w, rule, entry;
	bool mapped = false;
	int err; /* before 6.4 the upper half of what a map's update returns is not set */

	/* v1 hierarchies fire this tracepoint too, and ids are unique in each only. */
	if (!word || cgrp->root->hierarchy_id)
		return 0;
	w = READ_ONCE(*word);
	if (!SLB_CGROUP_VALID(w, parent))
		return 0;
	rule = SLB_CGROUP_NODE(w) ? expected(SLB_CGROUP_NODE(w), kn->name) : 0;
	if (rule) {
		entry = SLB_CGROUP(rule, id);
		err = has_room() ? bpf_map_update_elem(&cgroups, &id, &entry, BPF_NOEXIST) : -E2BIG;
		mapped = !err;
		if (mapped)
			__sync_fetch_and_add(&cgroup_room, -1);
		/* While a new build takes over both programs run: one finds it done. */
		if (err != -EEXIST)
			count_stat(mapped ? SLB_STAT_ANCHORS_MAPPED : SLB_STAT_CGROUPS_FULL);
	}
	/* Without a rule user space may still match it: a class, a second star. */
	if (rule || SLB_CGROUP_GROUP(w) || SLB_CGROUP_NODE(w))
		hint(SLB_EVENT_MKDIR, id, parent, mapped);
	return 0;
}

static __always_inline int anchor_gone(struct cgroup *cgrp)
{
	struct kernfs_node *kn = cgrp->kn;
	__u64 id = kn->id;

	if (cgrp->root->hierarchy_id)
		return 0;
	if (!bpf_map_delete_elem(&cgroups, &id)) {
		__sync_fetch_and_add(&cgroup_room, 1);
		hint(SLB_EVENT_RMDIR, id, parent_id(kn), true);
	}
	return 0;
}

#endif
