package zend

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

type version struct {
	text  string
	debug bool
}

// banner is the string that main/main.c sends as a header (SAPI_PHP_VERSION_HEADER).
var banner = []byte("X-Powered-By: PHP/")

var versionText = regexp.MustCompile(`^[5-9]\.[0-9]{1,2}\.[0-9]{1,3}`)

// findVersion asks the running engine, and the binary when it doesn't answer.
func findVersion(o Options, r remote.Reader) (version, error) {
	file, fileErr := bannerVersion(o)
	find := registryVersion
	if strings.HasPrefix(file, "5.") {
		find = registryVersion5
	}
	live, liveErr := find(o, r)
	switch {
	case liveErr == nil && fileErr == nil && live.text != file:
		return version{}, fmt.Errorf("%w: the running engine says %s, its file %s", ErrNoVersion, live.text, file)
	case liveErr == nil:
		return live, nil
	case fileErr == nil:
		return version{text: file}, nil
	}
	return version{}, fmt.Errorf("%w: %v; %v", ErrNoVersion, liveErr, fileErr)
}

// Banner finds PHP's version in a program's .rodata, "" when it is not PHP's.
func Banner(rodata []byte) string {
	v, err := bannerVersion(Options{Rodata: func() ([]byte, error) { return rodata, nil }})
	if err != nil {
		return ""
	}
	return v
}

func bannerVersion(o Options) (string, error) {
	if o.Rodata == nil {
		return "", fmt.Errorf("no .rodata")
	}
	b, err := o.Rodata()
	if err != nil {
		return "", err
	}
	for {
		i := bytes.Index(b, banner)
		if i < 0 {
			return "", fmt.Errorf("%q is not in .rodata", banner)
		}
		b = b[i+len(banner):]
		if v := versionText.Find(b[:min(len(b), 16)]); v != nil {
			return string(v), nil
		}
	}
}

// These offsets are needed before the version is known. They hold from 7.0 to
// 8.5 (Zend/zend_types.h: HashTable, Bucket, zend_string; zend_modules.h).
const (
	htUsed, htData                             = 24, 16
	bucketSize, bucketValue, bucketKey         = 32, 0, 24
	strLen, strVal                             = 16, 24
	moduleDebug, moduleZTS, moduleVersion      = 8, 9, 88
	maxModules, maxModuleName, maxVersionBytes = 512, 64, 32
)

// registryVersion finds the module "standard", which every PHP has, in
// module_registry; its version is PHP's.
func registryVersion(o Options, r remote.Reader) (version, error) {
	reg, _, ok := o.Lookup("module_registry")
	if !ok {
		return version{}, fmt.Errorf("no symbol module_registry")
	}
	used, err := remote.Uint32(r, reg+htUsed)
	if err != nil {
		return version{}, err
	}
	data, err := remote.Pointer(r, reg+htData)
	if err != nil {
		return version{}, err
	}
	if used > maxModules {
		return version{}, fmt.Errorf("module_registry claims %d modules", used)
	}
	for i := range used {
		b := data + remote.Addr(i)*bucketSize
		key, err := remote.Pointer(r, b+bucketKey)
		if err != nil {
			return version{}, err
		}
		n, err := remote.Uint64(r, key+strLen)
		if err != nil || n != uint64(len("standard")) {
			continue
		}
		name, err := remote.CString(r, key+strVal, maxModuleName)
		if err != nil || name != "standard" {
			continue
		}
		mod, err := remote.Pointer(r, b+bucketValue)
		if err != nil {
			return version{}, err
		}
		return moduleInfo(r, mod)
	}
	return version{}, fmt.Errorf("module_registry has no module named standard")
}

// PHP 5's HashTable and Bucket (Zend/zend_hash.h): a list through all buckets,
// whose keys are C strings, and whose value of a registered module is a copy
// of its entry.
const (
	ht5Head     = 32
	bucket5Data = 16
	bucket5Next = 32
	bucket5Key  = 64
)

func registryVersion5(o Options, r remote.Reader) (version, error) {
	reg, _, ok := o.Lookup("module_registry")
	if !ok {
		return version{}, fmt.Errorf("no symbol module_registry")
	}
	b, err := remote.Pointer(r, reg+ht5Head)
	for range maxModules {
		if err != nil || b == 0 {
			break
		}
		key, kerr := remote.Pointer(r, b+bucket5Key)
		if kerr != nil {
			return version{}, kerr
		}
		if name, nerr := remote.CString(r, key, maxModuleName); nerr == nil && name == "standard" {
			mod, merr := remote.Pointer(r, b+bucket5Data)
			if merr != nil {
				return version{}, merr
			}
			return moduleInfo(r, mod)
		}
		b, err = remote.Pointer(r, b+bucket5Next)
	}
	return version{}, fmt.Errorf("module_registry has no module named standard: %v", err)
}

func moduleInfo(r remote.Reader, mod remote.Addr) (version, error) {
	at, err := remote.Pointer(r, mod+moduleVersion)
	if err != nil {
		return version{}, err
	}
	text, err := remote.CString(r, at, maxVersionBytes)
	if err != nil {
		return version{}, err
	}
	v := versionText.FindString(text)
	if v == "" {
		return version{}, fmt.Errorf("version %q of the module standard", text)
	}
	debug, err := remote.Uint8(r, mod+moduleDebug)
	if err != nil {
		return version{}, err
	}
	return version{text: v, debug: debug == 1}, nil
}
