package main

import (
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
)

// write puts a file into the stage, with a mode and a time that are the same
// everywhere.
func (p *pack) write(name string, data []byte) error {
	path := filepath.Join(p.stage, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o644); err != nil { // the umask took some
		return err
	}
	return os.Chtimes(path, p.time, p.time)
}

// copyTree puts a folder of the checkout into the stage.
func (p *pack) copyTree(from, to string) error {
	top := filepath.Join(p.top, from)
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		name = filepath.Join(to, name)
		if d.IsDir() {
			dirs = append(dirs, filepath.Join(p.stage, name))
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return p.write(name, data)
	})
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chtimes(dir, p.time, p.time); err != nil {
			return err
		}
	}
	return nil
}

// gzipped compresses as `gzip -9n` would: no name, no time.
func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is one
	w.Write(data)                                         // memory takes it all
	w.Close()
	return b.Bytes()
}
