package main

import (
	"encoding/binary"
	"os"
)

// word is an index into struct shared of testdata/worker.c.
type word int64

const (
	wLoops word = iota
	wBad
	wUsr1
	wQueued
	wDisorder
	wLast
	wChildren
	wFailed
	wStatus
	wInherited
	wExecs
	wCommand
	wThreads
	wReady
)

// What a worker can be asked to do with wCommand.
const (
	cmdFork uint64 = iota + 1
	cmdSpawn
	cmdExec
	cmdExit
	cmdThreads
)

const sharedSize = 4096

// page is the memory that a worker counts in. The worker maps it; here it is
// read and written as a file, which the kernel keeps the same.
type page struct{ f *os.File }

func newPage(path string) (*page, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &page{f}, f.Truncate(sharedSize)
}

// get returns 0 for a word that can't be read: the counts are then wrong, and
// the round fails.
func (p *page) get(w word) uint64 {
	var b [8]byte
	if _, err := p.f.ReadAt(b[:], int64(w)*8); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (p *page) set(w word, v uint64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	_, err := p.f.WriteAt(b[:], int64(w)*8)
	return err
}
