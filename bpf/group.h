/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_GROUP_H
#define SLICELB_GROUP_H

#include "maps.h"

static __always_inline __u32 group_of(__u64 id)
{
	__u64 *word = bpf_map_lookup_elem(&cgroups, &id);
	__u64 w;

	if (!word)
		return 0;
	w = READ_ONCE(*word);
	return SLB_CGROUP_VALID(w, id) ? SLB_CGROUP_GROUP(w) : 0;
}

/*
 * The group of the calling task: its own cgroup's, else that of the nearest
 * ancestor which has one; 0 = the host. The task decides, not the socket: a
 * socket made in one cgroup and used from another counts for the second.
 *
 * Anchors lie at SLB_MAX_LEVEL at most, callers at any depth, so the walk
 * starts at the lesser of both. Levels are absolute: those of the hierarchy,
 * not of a cgroup namespace.
 */
static __noinline __u32 group_of_current(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroup *cgrp = task->cgroups->dfl_cgrp;
	__u32 group = group_of(cgrp->kn->id);
	int level;

	if (group)
		return group;

	level = cgrp->level - 1;
	if (level > SLB_MAX_LEVEL)
		level = SLB_MAX_LEVEL;
	for (int i = 0; i <= SLB_MAX_LEVEL; i++, level--) {
		if (level < 0)
			break;
		group = group_of(bpf_get_current_ancestor_cgroup_id(level));
		if (group)
			break;
	}
	return group;
}

#endif
