/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLICELB_GROUP_H
#define SLICELB_GROUP_H

#include "maps.h"

/* The word of a cgroup that has a group; 0 = it has none. */
static __always_inline __u64 member_word(__u64 id)
{
	__u64 *word = bpf_map_lookup_elem(&cgroups, &id);
	__u64 w;

	if (!word)
		return 0;
	w = READ_ONCE(*word);
	return SLB_CGROUP_VALID(w, id) && SLB_CGROUP_GROUP(w) ? w : 0;
}

/*
 * The word that says which group the calling task is in: its own cgroup's, else
 * that of the nearest ancestor which has a group; 0 = none has, it is the host.
 * *member is whose word it is, else as it was. The task decides, not the socket: a
 * socket made in one cgroup and used from another counts for the second.
 *
 * Anchors lie at SLB_MAX_LEVEL at most, callers at any depth, so the walk
 * starts at the lesser of both. Levels are absolute: those of the hierarchy,
 * not of a cgroup namespace. The function is global, so that the verifier walks
 * through it once.
 */
__noinline __u64 slb_word_of_current(__u64 *member)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroup *cgrp = task->cgroups->dfl_cgrp;
	__u64 id = cgrp->kn->id, w;
	int level;

	if (!member)
		return 0;
	w = member_word(id);
	level = cgrp->level - 1;
	if (level > SLB_MAX_LEVEL)
		level = SLB_MAX_LEVEL;
	for (int i = 0; !w && i <= SLB_MAX_LEVEL; i++, level--) {
		if (level < 0)
			return 0;
		id = bpf_get_current_ancestor_cgroup_id(level);
		w = member_word(id);
	}
	if (w)
		*member = id;
	return w;
}

#endif
