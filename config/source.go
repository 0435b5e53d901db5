package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Where an installed configuration lives, lowest precedence first.
var installedFolders = []string{"/usr/lib/slicelb", runFolder, "/etc/slicelb"}

// Source says which files make a configuration.
type Source struct {
	// Enforce makes the owner and mode of files and their folders an error;
	// else it is a warning. A file that was named alone may then be a link only
	// to another in its folder. Installed sets it.
	Enforce bool

	// Reader names who reads the files, for hints; "" is this process's user.
	Reader string

	root    string   // in front of every path, "" or like "/tmp/x"
	main    string   // the main file
	drops   []string // folders of drop-ins, lowest precedence first
	folders []string // what links may lead to; nil: the main file is read as it is
	alone   bool     // the main file must exist

	settled  func()            // a test's, between reading and looking again
	isDaemon func(uint32) bool // a test's; nil: runsDaemon
}

// Installed is /etc/slicelb/slicelb.toml with the drop-ins of /usr/lib, /run
// and /etc. A root other than "" or "/" stands in front of all of them; there
// files may belong to the caller instead of root.
func Installed(root string) Source {
	if root = filepath.Clean("/" + root); root == "/" {
		root = ""
	}
	s := Source{Enforce: true, root: root}
	for _, f := range installedFolders {
		s.folders = append(s.folders, root+f)
		s.drops = append(s.drops, root+f+"/conf.d")
	}
	s.main = root + "/etc/slicelb/slicelb.toml"
	return s
}

// fromPath is what a person names: a file alone; a folder like /etc/slicelb; or
// a folder that holds a whole tree, with etc/slicelb in it. Ownership and mode
// are warnings unless the path is part of the installed configuration.
func fromPath(name string) (Source, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return Source{}, err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return Source{}, err
	}
	if !info.IsDir() {
		s := Source{main: abs, alone: true}
		for _, f := range installedFolders {
			if strings.HasPrefix(abs, f+"/") {
				s.Enforce, s.folders = true, installedFolders
			}
		}
		return s, nil
	}
	if abs == "/" || abs == "/etc/slicelb" {
		return Installed(""), nil
	}
	here := Source{main: filepath.Join(abs, "slicelb.toml"), drops: []string{filepath.Join(abs, "conf.d")}, folders: []string{abs}}
	if exists(here.main) || exists(here.drops[0]) {
		return here, nil
	}
	if exists(filepath.Join(abs, "etc/slicelb")) {
		s := Installed(abs)
		s.Enforce = false
		return s, nil
	}
	return Source{}, fmt.Errorf("%s holds neither slicelb.toml nor conf.d", abs)
}

// At is fromPath, or Installed where nothing is named.
func At(name string) (Source, error) {
	if name == "" {
		return Installed(""), nil
	}
	return fromPath(name)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// list returns the files in load order: the main file, then the drop-ins by
// name. Of two with one name, the folder of higher precedence has it.
func (s Source) list() ([]string, error) {
	byName := make(map[string]string)
	for _, dir := range s.drops {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".toml") && name[0] != '.' {
				byName[name] = filepath.Join(dir, name)
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	files := []string{s.main}
	for _, name := range names {
		files = append(files, byName[name])
	}
	return files, nil
}
