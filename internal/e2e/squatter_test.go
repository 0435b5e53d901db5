package e2e

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/lab"
)

// playSquatter is a main process of the unit that is not slicelb. It does what
// its words say to the descriptor store and then waits for its end:
//
//	drop=TEXT    removes what was handed over under names that contain TEXT
//	swap=TEXT    stores another descriptor under those names instead
//	add=NAME     stores a descriptor that has nothing to do with slicelb
func playSquatter(words []string) int {
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, w := range words {
		verb, text, _ := strings.Cut(w, "=")
		switch verb {
		case "add":
			store(text)
		case "drop", "swap":
			for _, name := range names {
				if !strings.Contains(name, text) {
					continue
				}
				send(nil, "FDSTOREREMOVE=1\nFDNAME="+name)
				if verb == "swap" {
					store(name)
				}
			}
		}
	}
	send(nil, "READY=1")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	return 0
}

// playSever detaches every link at the lab's cgroup root whose program has this
// name, as somebody with the privilege may, and prints how many there were. The
// kernel lists the links of the whole machine: those elsewhere are not ours.
func playSever(args []string) int {
	var root unix.Stat_t
	if err := unix.Stat(lab.CgroupRoot, &root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	severed := 0
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil || info.Type != link.CgroupType || info.Cgroup() == nil || info.Cgroup().CgroupId != root.Ino {
			continue
		}
		p, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			continue
		}
		about, err := p.Info()
		p.Close()
		if err != nil || about.Name != args[0] {
			continue
		}
		if err := it.Link.Detach(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		severed++
	}
	fmt.Println(severed)
	return 0
}

func store(name string) {
	fd, err := unix.MemfdCreate("foreign", unix.MFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	send([]int{fd}, "FDSTORE=1\nFDPOLL=0\nFDNAME="+name)
}

func send(fds []int, text string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, unix.MSG_NOSIGNAL); err != nil {
		panic(err)
	}
}
