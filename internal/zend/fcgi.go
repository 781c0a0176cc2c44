package zend

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// A FastCGI server keeps what its client sent beside the engine: php-fpm's
// request_info has SCRIPT_NAME for its URI, which is /index.php whatever a
// framework's router was asked for. SG(server_context) points to the request,
// whose environment has the real one.

// SG(server_context) has been the first member since PHP 4 (main/SAPI.h), and in
// all builds that the tables were read from.
const sgContext = 0

// struct _fcgi_request of main/fastcgi.c, 7.0 to 8.5 on 64 bits (read from 7.0.12,
// and from the DWARF of 8.2 and 8.4): its environment is a hash table of its own.
// A chain's buckets are { hash_value, var_len, var, val_len, val, next, list_next }.
const (
	fcgiHasEnv, fcgiEnv = 8288, 8296
	fcgiSlots           = 128

	fcgiBucketSize                = 48
	fcgiHash, fcgiVarLen, fcgiVar = 0, 4, 8
	fcgiValLen, fcgiVal, fcgiNext = 16, 24, 32

	// maxFCGIChain bounds the variables that are looked at.
	maxFCGIChain = 256
)

// The same of PHP 5 (sapi/fpm/fpm/fastcgi.h of 5.6): the environment is a
// HashTable, see version.go.
const (
	fcgi5Env                   = 8256
	bucket5Length, bucket5Size = 8, 72
)

// fcgiHashOf is FCGI_HASH_FUNC (main/fastcgi.h) of a name of three bytes or more.
func fcgiHashOf(name string) uint32 {
	n := len(name)
	return uint32(name[3])<<2 + uint32(name[n-2])<<4 + uint32(name[n-1])<<2 + uint32(n)
}

// fcgiParam reads a variable that the web server has sent with the request.
func (th *Thread) fcgiParam(r remote.Reader, name string) (string, error) {
	if s := th.rt.SAPI; s != "fpm-fcgi" && s != "cgi-fcgi" {
		return "", fmt.Errorf("%w: no FastCGI request", ErrNoFact)
	}
	request, err := remote.Pointer(r, th.sg+sgContext)
	if err != nil {
		return "", fmt.Errorf("FastCGI request: %w", err)
	}
	// php-cgi without FastCGI has 1 there.
	if request%8 != 0 || request == 0 {
		return "", fmt.Errorf("%w: no FastCGI request", ErrNoFact)
	}
	if th.rt.Layout.PHP5 {
		return fcgiParam5(r, request, name)
	}
	if has, err := remote.Uint32(r, request+fcgiHasEnv); err != nil || has != 1 {
		return "", fmt.Errorf("%w: the FastCGI request has no environment: %v", ErrNoFact, err)
	}
	hash := fcgiHashOf(name)
	at, err := remote.Pointer(r, request+fcgiEnv+remote.Addr(hash%fcgiSlots)*8)
	for range maxFCGIChain {
		if err != nil || at == 0 {
			break
		}
		var b [fcgiBucketSize]byte
		if err = bucket(r, b[:], at); err != nil {
			break
		}
		word := func(off int) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(b[off:])) }
		half := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
		if half(fcgiHash)%fcgiSlots != hash%fcgiSlots {
			return "", fmt.Errorf("%w: a variable of the FastCGI environment is in a wrong place", ErrLayout)
		}
		if half(fcgiHash) == hash && half(fcgiVarLen) == uint32(len(name)) && spells(r, word(fcgiVar), name) {
			s, err := fcgiValue(r, word(fcgiVal))
			if err == nil && len(s) != int(min(half(fcgiValLen), maxURI)) {
				err = fmt.Errorf("%w: a value of the FastCGI environment has another length", ErrLayout)
			}
			return s, err
		}
		at = word(fcgiNext)
	}
	return "", noParam(name, err)
}

// fcgiParam5 is fcgiParam for PHP 5, whose environment is a HashTable of char *.
func fcgiParam5(r remote.Reader, request remote.Addr, name string) (string, error) {
	table, err := remote.Pointer(r, request+fcgi5Env)
	if err != nil || table == 0 || table%8 != 0 {
		return "", fmt.Errorf("%w: the FastCGI request has no environment: %v", ErrNoFact, err)
	}
	at, err := remote.Pointer(r, table+ht5Head)
	for range maxFCGIChain {
		if err != nil || at == 0 {
			break
		}
		var b [bucket5Size]byte
		if err = bucket(r, b[:], at); err != nil {
			break
		}
		word := func(off int) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(b[off:])) }
		// Keys are counted with their NUL.
		if binary.LittleEndian.Uint32(b[bucket5Length:]) == uint32(len(name)+1) && spells(r, word(bucket5Key), name) {
			p, err := remote.Pointer(r, word(bucket5Data))
			if err != nil {
				return "", noParam(name, err)
			}
			return fcgiValue(r, p)
		}
		at = word(bucket5Next)
	}
	return "", noParam(name, err)
}

// bucket reads one link of a chain.
func bucket(r remote.Reader, b []byte, at remote.Addr) error {
	if at%8 != 0 {
		return fmt.Errorf("%w: it leads to %s", ErrLayout, at)
	}
	return remote.ReadFull(r, b, at)
}

// spells reports whether a variable's name is this one.
func spells(r remote.Reader, at remote.Addr, name string) bool {
	key, err := remote.CString(r, at, len(name)+1)
	return err == nil && key == name
}

// fcgiValue reads a value, as far as a URI is read.
func fcgiValue(r remote.Reader, at remote.Addr) (string, error) {
	s, err := remote.CString(r, at, maxURI)
	if err != nil && !errors.Is(err, remote.ErrUnterminated) {
		return "", fmt.Errorf("FastCGI environment: %w", err)
	}
	return s, nil
}

// noParam says why a variable was not found.
func noParam(name string, err error) error {
	if err != nil {
		return fmt.Errorf("FastCGI environment: %w", err)
	}
	return fmt.Errorf("%w: %s is not in the FastCGI environment", ErrNoFact, name)
}
