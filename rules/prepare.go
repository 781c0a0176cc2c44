package rules

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	exprpb "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	"github.com/phpwhy/phpwhy/symbolize/pack"
)

// To read the text of forty rules as YAML, and some of their expressions as CEL,
// takes longer than to look at a worker. Neither changes for rules that a program
// carries, so both can be done beforehand: Prepare writes down the YAML nodes, with
// their places, and the checked expressions. What a rule means is still read from
// the nodes, so that there is one way to read it.
//
// The format: a magic, then (see package pack)
//
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
	set, problems := Load(dir)
	if len(problems) > 0 {
		return nil, problems
	}
	rules := slices.SortedFunc(slices.Values(set.Rules()), func(a, b *Rule) int { return strings.Compare(a.File, b.File) })
	checked := make(map[string][]byte)
	var w pack.Writer
	w.Length(len(rules))
	for _, r := range rules {
		d := &decoder{file: r.File}
		doc := d.document([]byte(r.text))
		if doc == nil {
			return nil, d.problems
		}
		w.Text(r.File)
		w.Number(uint64(len(r.text)))
		w.Number(uint64(crc32.Checksum([]byte(r.text), castagnoli)))
		w.Length(nodes(doc))
		writeNode(&w, doc)
		if err := r.eachExpr(func(e *expr) (err error) {
			checked[e.text], err = e.check()
			return err
		}); err != nil {
			return nil, []Problem{{r.File, r.Line, 1, codeExpr, err.Error()}}
		}
	}
	w.Length(len(checked))
	for _, text := range slices.Sorted(maps.Keys(checked)) {
		w.Text(text)
		w.Raw(checked[text])
	}
	return append([]byte(preparedMagic), w.Bytes()...), nil
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

func writeNode(w *pack.Writer, n *yaml.Node) {
	w.Number(uint64(n.Kind))
	w.Number(uint64(n.Style))
	w.Text(n.Tag)
	w.Text(n.Value)
	w.Number(uint64(n.Line))
	w.Number(uint64(n.Column))
	w.Length(len(n.Content))
	for _, c := range n.Content {
		writeNode(w, c)
	}
}

// nodes is how many nodes a tree has.
func nodes(n *yaml.Node) int {
	sum := 1
	for _, c := range n.Content {
		sum += nodes(c)
	}
	return sum
}

var errPrepared = errors.New("prepared rules are damaged, or of another version")

// readPrepared reads what Prepare has made.
func readPrepared(b []byte) (*prepared, error) {
	rest, ok := bytes.CutPrefix(b, []byte(preparedMagic))
	if !ok {
		return nil, errPrepared
	}
	r := pack.NewReader(rest)
	p := &prepared{docs: make(map[string]preparedDoc), exprs: make(map[string][]byte)}
	for range r.Length() {
		path := r.Text()
		d := preparedDoc{size: int(r.Number()), sum: uint32(r.Number())}
		n := r.Length()
		t := treeReader{r, make([]yaml.Node, n), make([]*yaml.Node, n)}
		d.root = t.node(0)
		p.docs[path] = d
	}
	for range r.Length() {
		text := r.Text()
		p.exprs[text] = r.Raw()
	}
	if !r.Done() {
		return nil, errPrepared
	}
	return p, nil
}

// treeReader reads the nodes of a file into room that was made at once.
type treeReader struct {
	*pack.Reader
	nodes []yaml.Node
	links []*yaml.Node
}

func (r *treeReader) node(depth int) *yaml.Node {
	if len(r.nodes) == 0 || depth > maxDepth+1 {
		r.Fail()
		return nil
	}
	n := &r.nodes[0]
	r.nodes = r.nodes[1:]
	n.Kind, n.Style = yaml.Kind(r.Number()), yaml.Style(r.Number())
	n.Tag, n.Value = r.Text(), r.Text()
	n.Line, n.Column = int(r.Number()), int(r.Number())
	k := r.Length()
	if k > len(r.links) {
		r.Fail()
		return n
	}
	n.Content, r.links = r.links[:k:k], r.links[k:]
	for i := range n.Content {
		if n.Content[i] = r.node(depth + 1); !r.OK() {
			break
		}
	}
	return n
}
