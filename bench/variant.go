package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// A variant is one way to connect: a cgroup, what is attached to it, and a
// worker process that lives in it.
type variant struct {
	name   string
	addr   netip.AddrPort             // what its worker connects to
	cgroup string                     // directory that programs are attached to
	edit   func(*ebpf.CollectionSpec) // of the programs, before they are loaded
	undo   []func() error             // in reverse order

	cmd *exec.Cmd
	enc *json.Encoder
	dec *json.Decoder
	in  interface{ Close() error }
}

// newVariant makes the variant's cgroup and a scope inside for its worker.
func newVariant(base, name string, addr netip.AddrPort) (*variant, error) {
	v := &variant{name: name, addr: addr, cgroup: filepath.Join(base, name)}
	for _, dir := range []string{v.cgroup, v.scope()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, errors.Join(err, v.close())
		}
		v.undo = append(v.undo, func() error { return os.Remove(dir) })
	}
	return v, nil
}

// scope is where the worker runs: one level below what programs are attached to.
func (v *variant) scope() string { return filepath.Join(v.cgroup, "bench.slice") }

// start runs the worker in its scope, from its first instruction on.
func (v *variant) start() error { return v.startIn(v.scope()) }

// startIn is start for another cgroup.
func (v *variant) startIn(cgroup string) error {
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	v.cmd = exec.Command("/proc/self/exe", workerArg)
	v.cmd.Stderr = os.Stderr
	v.cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL,
	}
	in, err := v.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.cmd.Start(); err != nil {
		return fmt.Errorf("start worker of %s: %w", v.name, err)
	}
	v.in, v.enc, v.dec = in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	v.undo = append(v.undo, func() error {
		return errors.Join(in.Close(), v.cmd.Wait())
	})
	return nil
}

// time has the worker make ops calls of a kind and returns ns a call.
func (v *variant) time(kind string, ops int) (float64, error) {
	if err := v.enc.Encode(order{Kind: kind, Ops: ops, Addr: v.addr}); err != nil {
		return 0, err
	}
	var r result
	if err := v.dec.Decode(&r); err != nil {
		return 0, fmt.Errorf("worker of %s: %w", v.name, err)
	}
	if r.Err != "" {
		return 0, fmt.Errorf("worker of %s: %s: %s", v.name, kind, r.Err)
	}
	return r.NsPerOp, nil
}

func (v *variant) close() error {
	var errs []error
	for i := len(v.undo) - 1; i >= 0; i-- {
		errs = append(errs, v.undo[i]())
	}
	v.undo = nil
	return errors.Join(errs...)
}

// attachEmpty puts a program that only allows on each hook that slicelb uses.
func (v *variant) attachEmpty() error {
	for _, h := range []ebpf.AttachType{
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect,
		ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
		ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg,
		ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername,
		ebpf.AttachCgroupInetSockRelease,
	} {
		kind := ebpf.CGroupSockAddr
		if h == ebpf.AttachCgroupInetSockRelease {
			kind = ebpf.CGroupSock
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: kind, AttachType: h, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		if err != nil {
			return fmt.Errorf("empty program: %w", err)
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: v.cgroup, Attach: h, Program: p})
		p.Close()
		if err != nil {
			return fmt.Errorf("attach empty program: %w", err)
		}
		v.undo = append(v.undo, l.Close)
	}
	return nil
}
