package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// atLevel says whether the cgroup ctx[1] is, of the calling task's and those above it,
// the one at level ctx[0].
var atLevel = asm.Instructions{
	asm.LoadMem(asm.R6, asm.R1, 8, asm.DWord),
	asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord),
	asm.FnGetCurrentAncestorCgroupId.Call(),
	asm.Mov.Reg(asm.R1, asm.R0),
	asm.Mov.Imm(asm.R0, levelBelow),
	asm.JEq.Imm(asm.R1, 0, "out"),
	asm.Mov.Imm(asm.R0, levelHit),
	asm.JEq.Reg(asm.R1, asm.R6, "out"),
	asm.Mov.Imm(asm.R0, levelMiss),
	asm.Return().WithSymbol("out"),
}

const (
	levelMiss = iota
	levelHit
	levelBelow // the task's own cgroup lies higher
)

// Level is the level of a cgroup in the hierarchy, whose root is at level 0: also in a
// cgroup namespace, in which nothing else tells. The cgroup must be the calling process's
// or one above that; false: it is another.
func Level(cgroup uint64) (level int, found bool, err error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "slb_at_level", Type: ebpf.RawTracepoint, License: "Dual BSD/GPL", Instructions: atLevel})
	if err != nil {
		return 0, false, fmt.Errorf("level of cgroup %d: %w", cgroup, err)
	}
	defer p.Close()
	for level := 0; ; level++ {
		var ctx [16]byte
		binary.NativeEndian.PutUint64(ctx[0:], uint64(level))
		binary.NativeEndian.PutUint64(ctx[8:], cgroup)
		switch ret, err := p.Run(&ebpf.RunOptions{Context: ctx[:]}); {
		case err != nil:
			return 0, false, fmt.Errorf("level of cgroup %d: %w", cgroup, err)
		case ret == levelHit:
			return level, true, nil
		case ret == levelBelow:
			return 0, false, nil
		}
	}
}
