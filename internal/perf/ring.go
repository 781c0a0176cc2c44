package perf

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// ring is one event's buffer: a control page, and the data behind it.
type ring struct {
	fd   int
	mem  []byte
	data []byte
	// scratch holds a record that goes around the end.
	scratch []byte
	tail    uint64
}

const pageSize = 4096

// mapRing maps n bytes of buffer, a power of two.
func mapRing(fd, n int) (*ring, error) {
	mem, err := unix.Mmap(fd, 0, pageSize+n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &ring{fd: fd, mem: mem, data: mem[pageSize:]}, nil
}

func (r *ring) close() error {
	err := unix.Munmap(r.mem)
	if cerr := unix.Close(r.fd); err == nil {
		err = cerr
	}
	return err
}

// drain hands up to limit records to fn, which must not keep them, and gives
// their room back.
func (r *ring) drain(limit int, fn func(kind uint32, body []byte) error) (n int, err error) {
	head := load(r.mem, headAt)
	tail := r.tail
	for ; tail < head && n < limit && err == nil; n++ {
		var kind uint32
		var body []byte
		var size uint64
		if kind, body, size, err = record(r.data, &r.scratch, tail, head); err != nil {
			tail = head // nothing tells where the next one begins
			break
		}
		err = fn(kind, body)
		tail += size
	}
	r.tail = tail
	store(r.mem, tailAt, tail)
	return n, err
}

// record finds the record at tail, whose end must not lie behind head.
func record(data []byte, scratch *[]byte, tail, head uint64) (kind uint32, body []byte, size uint64, err error) {
	room := uint64(len(data))
	if head < tail || head-tail > room || head-tail < headerBytes {
		return 0, nil, 0, fmt.Errorf("%w: %d bytes of %d in the ring", ErrMalformed, head-tail, room)
	}
	at := tail % room
	// Records are aligned to 8 bytes, so a header never goes around the end.
	if at+headerBytes > room {
		return 0, nil, 0, fmt.Errorf("%w: a header at %d of %d", ErrMalformed, at, room)
	}
	kind = binary.LittleEndian.Uint32(data[at:])
	size = uint64(binary.LittleEndian.Uint16(data[at+6:]))
	if size < headerBytes || size > head-tail {
		return 0, nil, 0, fmt.Errorf("%w: %d bytes of %d", ErrMalformed, size, head-tail)
	}
	if at+size <= room {
		return kind, data[at+headerBytes : at+size], size, nil
	}
	*scratch = append((*scratch)[:0], data[at+headerBytes:]...)
	*scratch = append(*scratch, data[:at+size-room]...)
	return kind, *scratch, size, nil
}
