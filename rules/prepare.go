package rules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"sort"

	"cel.dev/cel-go/cel"
	exprpb "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"
)

// To read the text of forty rules as YAML, and some of their expressions as CEL,
// takes longer than to look at a worker. Neither changes for rules that a program
// carries, so both can be done beforehand: Prepare writes down the YAML nodes, with
// their places, and the checked expressions. What a rule means is still read from
// the nodes, so that there is one way to read it.
//
// The format: a magic, then numbers (uvarint) and texts (a length, then bytes).
//
//	texts: how many, and each; they are named by their place below
//	files: how many, and for each its path, length and checksum, how many nodes, and
//	       the nodes in preorder: kind, style, tag, value, line, column, children
//	expressions: how many, and for each its text and a google.api.expr.v1alpha1.CheckedExpr
//
// It is made and read by the same version of this package.
const preparedMagic = "phpwhy rules 1\n"

// prepared is what was written down. A nil one knows nothing.
type prepared struct {
	docs  map[string]preparedDoc // by path
	exprs map[string][]byte      // by text
}

type preparedDoc struct {
	size int
	sum  uint32
	root *yaml.Node
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// doc is a file's top-level mapping; nil when it was not prepared, or has changed
// since.
func (p *prepared) doc(path string, text []byte) *yaml.Node {
	if p == nil {
		return nil
	}
	d, ok := p.docs[path]
	if !ok || d.size != len(text) || d.sum != crc32.Checksum(text, castagnoli) {
		return nil
	}
	return d.root
}

// checked is an expression's checked form, nil when there is none.
func (p *prepared) checked(text string) []byte {
	if p == nil {
		return nil
	}
	return p.exprs[text]
}

// Prepare makes what Source.Prepared takes of the rules in dir. It fails when one
// of them has a problem.
func Prepare(dir fs.FS) ([]byte, []Problem) {
	w := preparer{index: make(map[string]uint64)}
	set, problems := Load(dir)
	if len(problems) > 0 {
		return nil, problems
	}
	var files []byte
	rules := slices.Clone(set.Rules())
	sort.Slice(rules, func(i, j int) bool { return rules[i].File < rules[j].File })
	for _, r := range rules {
		d := &decoder{file: r.File}
		doc := d.document([]byte(r.text))
		if doc == nil {
			return nil, d.problems
		}
		files = w.number(files, w.text(r.File))
		files = w.number(files, uint64(len(r.text)))
		files = w.number(files, uint64(crc32.Checksum([]byte(r.text), castagnoli)))
		files = w.number(files, nodes(doc))
		files = w.node(files, doc)
	}
	texts := make(map[string][]byte)
	for _, r := range rules {
		if err := r.eachExpr(func(e *expr) error {
			b, err := e.check()
			texts[e.text] = b
			return err
		}); err != nil {
			return nil, []Problem{{r.File, r.Line, 1, codeExpr, err.Error()}}
		}
	}
	var exprs []byte
	for _, text := range slices.Sorted(maps.Keys(texts)) {
		exprs = w.number(exprs, w.text(text))
		exprs = w.bytes(exprs, texts[text])
	}
	out := []byte(preparedMagic)
	out = w.number(out, uint64(len(w.texts)))
	for _, t := range w.texts {
		out = w.bytes(out, []byte(t))
	}
	out = append(w.number(out, uint64(len(rules))), files...)
	return append(w.number(out, uint64(len(texts))), exprs...), nil
}

// check gives an expression's checked form.
func (e *expr) check() ([]byte, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, bad := e.ast(env)
	if bad != nil {
		return nil, bad
	}
	pb, err := cel.AstToCheckedExpr(ast)
	if err != nil {
		return nil, err
	}
	pb.SourceInfo = nil // places in the text: it is known to be right
	return proto.MarshalOptions{Deterministic: true}.Marshal(pb)
}

// restore is the opposite of check.
func restore(checked []byte) (*cel.Ast, error) {
	var pb exprpb.CheckedExpr
	if err := proto.Unmarshal(checked, &pb); err != nil {
		return nil, err
	}
	return cel.CheckedExprToAstWithSource(&pb, nil)
}

// eachExpr visits a rule's expressions.
func (r *Rule) eachExpr(visit func(*expr) error) error {
	var errs error
	r.match.walk(func(n node) {
		if c, ok := n.(*exprNode); ok {
			errs = errors.Join(errs, visit(c.e))
		}
	})
	for _, e := range r.bind {
		errs = errors.Join(errs, visit(e))
	}
	for _, b := range r.score.plus {
		errs = errors.Join(errs, visit(b.if_))
	}
	return errs
}

type preparer struct {
	texts []string
	index map[string]uint64
}

func (w *preparer) number(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }

func (w *preparer) bytes(b, text []byte) []byte { return append(w.number(b, uint64(len(text))), text...) }

// text is the place of a text.
func (w *preparer) text(s string) uint64 {
	i, ok := w.index[s]
	if !ok {
		i = uint64(len(w.texts))
		w.index[s], w.texts = i, append(w.texts, s)
	}
	return i
}

func (w *preparer) node(b []byte, n *yaml.Node) []byte {
	for _, v := range []uint64{uint64(n.Kind), uint64(n.Style), w.text(n.Tag), w.text(n.Value), uint64(n.Line), uint64(n.Column), uint64(len(n.Content))} {
		b = w.number(b, v)
	}
	for _, c := range n.Content {
		b = w.node(b, c)
	}
	return b
}

func nodes(n *yaml.Node) uint64 {
	sum := uint64(1)
	for _, c := range n.Content {
		sum += nodes(c)
	}
	return sum
}

var errPrepared = errors.New("prepared rules are damaged, or of another version")

// readPrepared reads what Prepare has made.
func readPrepared(b []byte) (*prepared, error) {
	r := preparedReader{b: b}
	if rest, ok := bytes.CutPrefix(b, []byte(preparedMagic)); ok {
		r.b = rest
	} else {
		return nil, errPrepared
	}
	r.texts = make([]string, r.length())
	for i := range r.texts {
		r.texts[i] = string(r.bytes())
	}
	p := &prepared{docs: make(map[string]preparedDoc), exprs: make(map[string][]byte)}
	for range r.length() {
		path := r.text()
		d := preparedDoc{size: int(r.number()), sum: uint32(r.number())}
		n := r.length()
		r.nodes, r.links = make([]yaml.Node, n), make([]*yaml.Node, n)
		d.root = r.node(0)
		p.docs[path] = d
	}
	for range r.length() {
		text := r.text()
		p.exprs[text] = r.bytes()
	}
	if r.bad {
		return nil, errPrepared
	}
	return p, nil
}

// preparedReader reads with a sticky error.
type preparedReader struct {
	b     []byte
	bad   bool
	texts []string
	// What is left for the nodes of a file, and for the links between them.
	nodes []yaml.Node
	links []*yaml.Node
}

func (r *preparedReader) number() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[k:]
	return n
}

// length is a number of things that take a byte each at least.
func (r *preparedReader) length() int {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

func (r *preparedReader) bytes() []byte {
	n := r.length()
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *preparedReader) text() string {
	n := r.number()
	if n >= uint64(len(r.texts)) {
		r.bad = true
		return ""
	}
	return r.texts[n]
}

func (r *preparedReader) node(depth int) *yaml.Node {
	if len(r.nodes) == 0 || depth > maxDepth+1 {
		r.bad, r.b = true, nil
		return nil
	}
	n := &r.nodes[0]
	r.nodes = r.nodes[1:]
	n.Kind, n.Style = yaml.Kind(r.number()), yaml.Style(r.number())
	n.Tag, n.Value = r.text(), r.text()
	n.Line, n.Column = int(r.number()), int(r.number())
	k := r.length()
	if k > len(r.links) {
		r.bad, r.b = true, nil
		return n
	}
	n.Content, r.links = r.links[:k:k], r.links[k:]
	for i := range n.Content {
		if n.Content[i] = r.node(depth + 1); r.bad {
			break
		}
	}
	return n
}
