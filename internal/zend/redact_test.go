package zend

import (
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestSecretNames(t *testing.T) {
	for _, name := range strings.Fields(`password $password userPassword PASSWORD password2 db_password newpassword passwords passwd pwd dbPwd pass dbPass db_pass
		DBPASS passphrase secret clientSecret SECRET_KEY secrets token accessToken access_token tokens csrfToken CSRFToken _token key apiKey api_key apikey
		APIKey privateKey private_key keys key2 auth httpAuth authorization Authorization HTTP_AUTHORIZATION credential credentials dbCredentials cred creds
		cookie cookies _COOKIE sessionId session_id PHPSESSID sid csrf xsrf nonce pin userPIN pin_code cvv cvc card cardNumber card_number creditcard iban
		IBAN customerIban ssn dsn DSN jwt JWTToken bearer bearerToken signature sig hash passwordHash password_hash salt hmac otp totp pem login oauth
		oauthConfig $tokens[2] übersecret`) {
		if !secretName(name) {
			t.Errorf("%s would be shown", name)
		}
	}
	for _, name := range strings.Fields(`monkey monkeys keyword keywords keyboard hockey turkey author authored authority tokenizer tokenize passenger compass bypass
		passed passing spin pinned pinch ping spinner opinion cardinal cardboard discard hashtable hashmap rehash salty basalt desalt cookiecutter signal
		design assign sessional row rows n i page filename path line discord record wildcard row user users email name data items this classname
		describe session2x md5 sha256 company panel expand tank pink saltire ssnake iban4x2ish`) {
		switch name {
		case "session2x", "iban4x2ish": // a digit ends a word
			continue
		}
		if secretName(name) {
			t.Errorf("%s would be redacted", name)
		}
	}
}

func TestSecretTexts(t *testing.T) {
	const jwt = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	for _, tt := range []struct {
		text string
		cut  bool
	}{
		{"-----BEGIN RSA PRIVATE KEY-----\nMIIE", true}, {"-----BEGIN PRIVATE KEY-----", false}, {"x\n-----BEGIN OPENSSH PRIVATE KEY-----", true},
		{jwt, false}, {"token is " + jwt, false}, {jwt[:30], true}, {jwt[:30], false},
		{"Bearer abcdef123456", false}, {"bearer   abcdef123456", false}, {"Authorization: Bearer x", false}, {"Basic dXNlcjpwYXNz", false},
		{"https://user:password@host/", false}, {"mysql://root:p/w@db:3306/x", false}, {"redis://:hunter2@cache", false}, {"smtp://u:verylongpass", true},
		{"mysql:host=db;password=hunter2", false}, {`{"password":"hunter2"}`, false}, {`{"api_key": "x"}`, false}, {"a=1&access_token=abc&b=2", false},
		{"UPDATE users SET password='x' WHERE id=1", false}, {"array('secret' => 'x')", false}, {"Cookie: PHPSESSID=abc", false}, {"SetCookie=1", false},
		{"$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", false}, {"$argon2id$v=19$m=65536", false}, {"AKIAIOSFODNN7EXAMPLE", false},
		{"ghp_16C7e42F292c6912E7710c838347Ae178B4a", false}, {"sk_live_4eC39HqLyjWDarjtT1zdp7dc", false},
	} {
		if !secretText(tt.text, tt.cut) {
			t.Errorf("%q would be shown", tt.text)
		}
	}
	for _, tt := range []struct {
		text string
		cut  bool
	}{
		{"", false}, {"hello, world", false}, {"-----BEGIN CERTIFICATE-----", true}, {"-----BEGIN PUBLIC KEY-----", true}, {"eyJ", false}, {"keyJammed once", false},
		{"the bearer of news", false}, {"a basic idea", false}, {"https://host/path", false}, {"https://host:8080/x?mail=a@b.c", false}, {"http://host:80", false},
		{"http://host:80", true}, {"user@host:/path", false}, {"mailto:user@host", false}, {"SELECT * FROM tokens WHERE id = 1", false}, {"monkey=1&page=2", false},
		{"user:5:card:7", false}, {"primary key: id", false}, {"the password is wrong", false}, {"keyword: x", false}, {"costs $2 or $10", false}, {"AKIA", false},
		{"author: me", false}, {"PRIVATE KEY", false}, {"Password", false},
	} {
		if secretText(tt.text, tt.cut) {
			t.Errorf("%q would be redacted", tt.text)
		}
	}
}

func TestAStringIsRedactedUnderEveryName(t *testing.T) {
	str := func(name, text string, at uint64) raw {
		return raw{name: name, kind: Variable, typ: TypeString, text: text, size: uint64(len(text)), at: remote.Addr(0x1000 + 8*at)}
	}
	got := show([][]raw{
		{str("$string", "correct horse", 1), str("$line", "x correct horse y", 2), str("$other", "correct", 3), str("$copy", "correct horse", 4)},
		nil,
		{str("$password", "correct horse", 1), str("$pin", "123", 5), str("$n", "123", 6), str("$key", "abcd", 7), str("$col", "abcd", 8), str("$text", "xabcd", 9)},
	})
	for name, redacted := range map[string]bool{"$string": true, "$line": true, "$other": false, "$copy": true, "$password": true, "$pin": true, "$n": false,
		"$key": true, "$col": true, "$text": false} {
		for _, f := range got {
			for _, v := range f {
				if v.Name == name && (v.Redacted != redacted || (v.Text == Redacted) != redacted || redacted && (v.size != 0 || v.bits != 0)) {
					t.Errorf("%+v", v)
				}
			}
		}
	}
	if got[1] != nil {
		t.Error("values of a frame of which none are wanted")
	}
}

func TestTheTypeOfASecretIsShown(t *testing.T) {
	for _, tt := range []struct {
		w    raw
		want string
	}{
		{raw{name: "$token", typ: TypeInt, bits: 5}, "int [redacted]"},
		{raw{name: "$tokens", typ: TypeArray, size: 5}, "array [redacted]"},
		{raw{name: "$auth", typ: TypeObject, class: "A", bits: 1}, "object [redacted]"},
		{raw{name: "$auth", typ: TypeUndef}, "undef undefined"},
		{raw{name: "$x", typ: TypeBool, bits: 1, secret: true}, "bool [redacted]"},
		{raw{name: "$?", typ: TypeInt, bits: 1}, "int [redacted]"},
		{raw{name: "$?[0]", typ: TypeInt, bits: 1}, "int [redacted]"},
		{raw{name: "$this", kind: This, typ: TypeObject, class: "Token", bits: 1}, "object object(Token)#1"},
	} {
		v := show([][]raw{{tt.w}})[0][0]
		if got := v.Type + " " + v.Text; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.w.name, got, tt.want)
		}
	}
}

func BenchmarkSecretText(b *testing.B) {
	for name, s := range map[string]string{"letters": strings.Repeat("a", 256), "prose": strings.Repeat("some words, and more; ", 12)[:256],
		"sql": strings.Repeat("SELECT id FROM t WHERE a = 1 AND b: 2 ", 7)[:256]} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				secretText(s, true)
			}
		})
	}
}
