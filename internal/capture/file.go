package capture

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// suffix of the names of compressed files.
const suffix = ".zst"

// zstdMagic begins a Zstandard frame (RFC 8878, 3.1.1).
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// maxWindow bounds the decompressor's memory; the writer's window is 8 MiB at most.
const maxWindow = 32 << 20

// Output is a capture file being written.
type Output struct {
	f *os.File
	z *zstd.Encoder // nil for plain text
	// within: something was written since the last frame ended.
	within bool
	// untouched: nothing was written yet; made: the file was not there before.
	untouched, made bool
}

// Create makes or empties the file at path, readable by its owner alone:
// captures hold URIs and paths. It is compressed when the name ends in ".zst".
func Create(path string) (*Output, error) {
	o, err := Prepare(path)
	if err != nil {
		return nil, err
	}
	if err := o.begin(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// Prepare is Create, which leaves a file that is there as it is until something is
// written, and leaves none behind if nothing ever is.
func Prepare(path string) (*Output, error) {
	_, err := os.Lstat(path)
	made := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	o := &Output{f: f, untouched: true, made: made}
	if strings.HasSuffix(path, suffix) {
		o.z, err = zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return o, nil
}

// secure narrows the mode of a file that was there before it empties it. Pipes
// and devices are left as they are.
func secure(f *os.File) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return err
		}
	}
	return f.Truncate(0)
}

// begin empties the file.
func (o *Output) begin() error {
	if !o.untouched {
		return nil
	}
	o.untouched = false
	return secure(o.f)
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	if err := o.begin(); err != nil {
		return 0, err
	}
	if o.z != nil {
		o.within = o.within || len(p) > 0
		return o.z.Write(p)
	}
	return o.f.Write(p)
}

// Flush makes what was written so far readable, whatever becomes of this
// program: in a compressed file it ends the Zstandard frame, and the next write
// begins another. A reader that meets half a frame has all those before it.
func (o *Output) Flush() error {
	if o.z == nil || !o.within {
		return nil
	}
	if err := o.z.Close(); err != nil {
		return err
	}
	o.z.Reset(o.f)
	o.within = false
	return nil
}

// Close ends the compressed stream and closes the file.
func (o *Output) Close() error {
	err := errors.Join(o.Flush(), o.f.Close())
	if o.untouched && o.made {
		o.made = false
		err = errors.Join(err, os.Remove(o.f.Name()))
	}
	return err
}

// Open opens the file at path for NewReader or Read, compressed or not: its
// first bytes tell, whatever its name.
func Open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := Decompress(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &input{r, f}, nil
}

type input struct {
	io.ReadCloser
	f *os.File
}

func (in *input) Close() error { return errors.Join(in.ReadCloser.Close(), in.f.Close()) }

// Decompress returns the text of a capture stream that may be compressed.
// Closing it frees the decompressor, and leaves r to its owner.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReader(r)
	head, err := br.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(head, zstdMagic) {
		return io.NopCloser(br), nil
	}
	z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}
