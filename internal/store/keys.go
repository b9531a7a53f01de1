package store

import (
	"fmt"
	"net/url"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sandman-proxy/sandman/internal/session"
)

// kind is the folder that a key stands in.
type kind string

const (
	kindRecord   kind = "sandboxes"
	kindActivity kind = "activity"
	kindPresence kind = "presence"
	kindHold     kind = "holds"
	kindNode     kind = "nodes"
	kindHistory  kind = "history"
	kindLeader   kind = "leader"
	kindStreams  kind = "streams"
	kindPolicy   kind = "policies"
	kindUsage    kind = "usage"
	kindSecret   kind = "secrets"
	kindRun      kind = "runs"
	kindAnswer   kind = "answers"
)

// aside are the kinds that the view is not made of. The first list leaves out
// their folders, which may be large; the watch can't.
func aside() []kind {
	return []kind{kindAnswer, kindHistory, kindLeader, kindRun, kindSecret, kindUsage}
}

// keys makes and reads the keys under a prefix. IDs, nodes and names are
// escaped, so that each is one path segment: without that, an ID with a slash
// would stand within another one's range.
type keys struct{ prefix string }

func (k keys) record(id string) string         { return k.join(kindRecord, id) }
func (k keys) activity(id string) string       { return k.join(kindActivity, id) }
func (k keys) node(node string) string         { return k.join(kindNode, node) }
func (k keys) presence(id, node string) string { return k.join(kindPresence, id, node) }
func (k keys) hold(id, name string) string     { return k.join(kindHold, id, name) }
func (k keys) streams(id, node string) string  { return k.join(kindStreams, id, node) }
func (k keys) secret(name string) string       { return k.join(kindSecret, name) }
func (k keys) answer(of AnswerKey) string      { return k.join(kindAnswer, of.Caller, of.Name) }

// folder is the range of the keys of one kind of one sandbox.
func (k keys) folder(of kind, id string) string { return k.join(of, id) + "/" }

// leader is the name of the election, without the slash that the election adds.
func (k keys) leader() string { return k.prefix + string(kindLeader) }

// history is the key of the transition that replaced the record of the given
// revision, 0 if it replaced none. Numbers of fixed width sort by value.
func (k keys) history(id string, replaced int64) string {
	return fmt.Sprintf("%s%020d", k.folder(kindHistory, id), replaced)
}

func (k keys) policy(of session.Scope, name string) string {
	return k.join(kindPolicy, string(of), name)
}

// usage is the key of what the step that replaced the record of the given
// revision added to the usage of a day, or of the whole days of a month.
func (k keys) usage(span, id string, replaced int64) string {
	return fmt.Sprintf("%s%020d", k.join(kindUsage, span, id)+"/", replaced)
}

// usageOf is the range of all usage of a day or month, and usageRoot of all.
func (k keys) usageOf(span string) string { return k.usageRoot() + span + "/" }
func (k keys) usageRoot() string          { return k.prefix + string(kindUsage) + "/" }

// listed are the ranges of keys that the view is made of: everything but what
// stands in folders that are aside, which is most of it.
func (k keys) listed() [][2]string {
	var ranges [][2]string
	from := k.prefix
	for _, of := range aside() {
		folder := k.prefix + string(of) + "/"
		ranges = append(ranges, [2]string{from, folder})
		from = clientv3.GetPrefixRangeEnd(folder)
	}
	return append(ranges, [2]string{from, clientv3.GetPrefixRangeEnd(k.prefix)})
}

func (k keys) join(of kind, parts ...string) string {
	var b strings.Builder
	b.WriteString(k.prefix)
	b.WriteString(string(of))
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(escape(p))
	}
	return b.String()
}

// escape keeps ids readable in etcdctl. An empty part becomes "%", which is
// no escape of anything else.
func escape(s string) string {
	if s == "" {
		return "%"
	}
	return url.PathEscape(s)
}

// unescape refuses what escape would have written in another way: two keys
// must not mean the same sandbox.
func unescape(s string) (string, error) {
	if s == "%" {
		return "", nil
	}
	part, err := url.PathUnescape(s)
	if err != nil || escape(part) != s {
		return "", fmt.Errorf("%q in the key is not escaped as it should be", s)
	}
	return part, nil
}

// parts is a key taken apart: its kind, the id (or the node, under nodes/),
// and what stands below the id.
type parts struct {
	kind kind
	id   string
	sub  string
}

// depths says how many segments follow the kind.
var depths = map[kind]int{kindRecord: 1, kindActivity: 1, kindNode: 1, kindPresence: 2, kindHold: 2, kindStreams: 2, kindPolicy: 2}

// parse takes apart a key that the view is made of. For the kinds that it
// isn't made of only the kind is filled in.
func (k keys) parse(key string) (parts, error) {
	segments := strings.Split(strings.TrimPrefix(key, k.prefix), "/")
	p := parts{kind: kind(segments[0])}
	if p.kind.ignored() {
		return p, nil
	}
	depth, known := depths[p.kind]
	if !known || len(segments) != depth+1 {
		return p, fmt.Errorf("the key is of no known kind")
	}
	var err error
	if p.id, err = unescape(segments[1]); err == nil && depth == 2 {
		p.sub, err = unescape(segments[2])
	}
	if err != nil {
		return p, err
	}
	return p, nil
}

// unchanged compares the mod revision of a key; 0 stands for "not there".
func unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// empty holds exactly if no key stands in the folder: a compare over a range
// is true for each key in it, and no key has the create revision 0.
func empty(folder string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(folder).WithPrefix(), "=", 0)
}
