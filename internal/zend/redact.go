package zend

import (
	"regexp"
	"strings"
	"sync"
	"unicode"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// What a report shows ends up in tickets and chats, so that a variable is
// redacted when its name says that it holds a secret, when its value looks
// like one, and when it is the same string as another variable that is
// redacted: strlen($password) has the password in a parameter named $string.

// secretWords make a name secret when they are one of its words, in the
// singular or plural.
var secretWords = wordSet(`password passwd passwort pass passcode passphrase pw pwd pswd secret token key apikey auth oauth authorization
	authentication credential cred cookie session sess sid csrf xsrf nonce otp totp mfa pin tan cvv cvc card pan iban ssn dsn jwt bearer
	signature sig hmac salt hash pem login kennwort dbpass dbpwd userpass privkey`)

// weakWords name secrets in a variable's name, but in a text they stand before
// a colon or an equals sign for other reasons as well.
var weakWords = wordSet("card hash login mfa nonce pan pass pin salt sess session tan key keys")

// secretParts make a name secret wherever they stand in it; they are no part
// of any other word.
var secretParts = []string{"password", "passwd", "passphrase", "passwort", "secret", "credential", "apikey", "accesskey", "privatekey", "secretkey",
	"authkey", "signingkey", "encryptionkey", "accesstoken", "authtoken", "refreshtoken", "authorization", "sessionid", "sessid", "csrf", "xsrf",
	"creditcard", "cardnumber", "connectionstring", "socialsecurity"}

func wordSet(s string) map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// secretName judges a name by its words.
func secretName(name string) bool { return secretIn(name, nil) }

// secretIn is secretName without the words in except.
func secretIn(name string, except map[string]bool) bool {
	words := wordsOf(name)
	for _, w := range words {
		if !except[w] && (secretWords[w] || secretWords[strings.TrimSuffix(w, "s")]) {
			return true
		}
	}
	all := strings.Join(words, "")
	for _, p := range secretParts {
		if strings.Contains(all, p) {
			return true
		}
	}
	return false
}

// wordsOf splits camelCase, snake_case and the like, and drops digits:
// "userAPIKey2" is user, api, key.
func wordsOf(name string) []string {
	var words []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = word[:0]
		}
	}
	rs := []rune(name)
	for i, r := range rs {
		if !unicode.IsLetter(r) {
			end()
			continue
		}
		if i > 0 && unicode.IsUpper(r) {
			next := i+1 < len(rs) && unicode.IsLower(rs[i+1])
			if unicode.IsLower(rs[i-1]) || next && unicode.IsUpper(rs[i-1]) {
				end()
			}
		}
		word = append(word, r)
	}
	end()
	return words
}

// secretTexts recognise secrets by themselves, also ones that go on beyond
// what was read. Every string of every stop is held against them, so that each
// has what no match can do without, which is found much faster.
var secretTexts = []struct {
	has string
	re  func() *regexp.Regexp
}{
	{"-----BEGIN ", lazily(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY`)},
	{"eyJ", lazily(`\beyJ[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_-]|$)`)}, // a JWT begins with {" in base64
	{" ", lazily(`(?i)\b(bearer|basic|digest) +[A-Za-z0-9+/=._~-]{6,}`)},
	{"$", lazily(`\$(2[abxy]|argon2[a-z]*|[156y]|scrypt|pbkdf2[a-z0-9-]*)\$`)}, // crypt(3)
	{"IA", lazily(`\b(AKIA|ASIA)[0-9A-Z]{12}`)},
	{"_", lazily(`\b(gh[opsur]_|github_pat_|sk_live_|rk_live_)[A-Za-z0-9_-]{8}`)},
	{"-", lazily(`\b(glpat-|xox[abeoprs]-|sk-)[A-Za-z0-9_-]{8}`)},
}

// assignment is a name with something given to it: password=x, "token": "x",
// Authorization: x.
var assignment = lazily(`([A-Za-z][A-Za-z0-9_-]*)["']?\s*(=>?|:)\s*["']?[^\s"'&;,]`)

// userinfo is the part of a URL from its scheme on to where a password may be.
var userinfo = lazily(`://[^\s/?#@:]*:([^\s@]*)(@?)`)

// port is what stands behind a host's colon.
var port = lazily(`^[0-9]{1,5}([/?#"'<>),;]|$)`)

// lazily compiles a regular expression that most runs do not need.
func lazily(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// SecretText reports whether a text looks as if it held a secret, by the rules
// for values of variables.
func SecretText(s string) bool { return secretText(s, false) }

// secretText judges a string's first bytes. cut says that it is longer.
func secretText(s string, cut bool) bool {
	for _, t := range secretTexts {
		if strings.Contains(s, t.has) && t.re().MatchString(s) {
			return true
		}
	}
	if !strings.ContainsAny(s, "=:") {
		return false
	}
	for _, m := range assignment().FindAllStringSubmatch(s, -1) {
		if secretIn(m[1], weakWords) {
			return true
		}
	}
	for _, m := range userinfo().FindAllStringSubmatchIndex(s, -1) {
		behind, closed := s[m[2]:m[3]], m[4] < m[5]
		if port().MatchString(behind) {
			continue
		}
		if closed || cut && m[3] == len(s) {
			return true
		}
	}
	return false
}

// private reports whether a variable is secret by itself.
func (w *raw) private() bool {
	if w.kind == This {
		return false
	}
	return w.secret || strings.HasPrefix(w.name, "$"+unreadable) || secretName(w.name) ||
		w.typ == TypeString && secretText(w.text, w.size > uint64(len(w.text)))
}

const (
	// A string that is a secret's content is redacted from minSame bytes on,
	// and one that has a secret in it from minPart on: shorter ones are found
	// everywhere by chance.
	minSame, minPart = 4, 8
	maxSecrets       = 64
)

// secrets are the strings of a stack that must not be shown under any name.
type secrets struct {
	at    map[remote.Addr]bool
	same  map[string]bool
	parts []string
}

func secretsOf(frames [][]raw) *secrets {
	s := &secrets{at: make(map[remote.Addr]bool), same: make(map[string]bool)}
	for _, f := range frames {
		for i := range f {
			w := &f[i]
			if w.typ != TypeString || w.size < minSame || s.at[w.at] || !w.private() {
				continue
			}
			s.at[w.at] = true
			if s.same[w.text] || len(s.same) >= maxSecrets {
				continue
			}
			s.same[w.text] = true
			if len(w.text) >= minPart {
				s.parts = append(s.parts, w.text)
			}
		}
	}
	return s
}

// has reports whether a string is a secret, or has one in it.
func (s *secrets) has(w *raw) bool {
	if s.at[w.at] || s.same[w.text] {
		return true
	}
	for _, p := range s.parts {
		if strings.Contains(w.text, p) {
			return true
		}
	}
	return false
}
