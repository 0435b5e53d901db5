/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_GROUP_H
#define SLICELB_GROUP_H

#include "maps.h"

/* The group of a cgroup itself; *split is its id where it is a split child. */
static __always_inline __u32 group_split_of(__u64 id, __u64 *split)
{
	__u64 *word = bpf_map_lookup_elem(&cgroups, &id);
	__u64 w;

	if (!word)
		return 0;
	w = READ_ONCE(*word);
	if (!SLB_CGROUP_VALID(w, id))
		return 0;
	if (w & SLB_CGROUP_SPLIT)
		*split = id;
	return SLB_CGROUP_GROUP(w);
}

static __always_inline __u32 group_of(__u64 id)
{
	__u64 split;

	return group_split_of(id, &split);
}

/*
 * The group of the calling task: its own cgroup's, else that of the nearest
 * ancestor which has one; 0 = the host. The task decides, not the socket: a
 * socket made in one cgroup and used from another counts for the second.
 *
 * Anchors lie at SLB_MAX_LEVEL at most, callers at any depth, so the walk
 * starts at the lesser of both. Levels are absolute: those of the hierarchy,
 * not of a cgroup namespace. *split is the cgroup's id where it is a split child,
 * else as it was. The function is global, so that the verifier walks through it
 * once.
 */
__noinline __u32 slb_group_of_current(__u64 *split)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroup *cgrp = task->cgroups->dfl_cgrp;
	__u32 group;
	int level;

	if (!split)
		return 0;
	group = group_split_of(cgrp->kn->id, split);
	if (group)
		return group;

	level = cgrp->level - 1;
	if (level > SLB_MAX_LEVEL)
		level = SLB_MAX_LEVEL;
	for (int i = 0; i <= SLB_MAX_LEVEL; i++, level--) {
		if (level < 0)
			break;
		group = group_split_of(bpf_get_current_ancestor_cgroup_id(level), split);
		if (group)
			break;
	}
	return group;
}

#endif
