package cli

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// style is how something is shown on a terminal.
type style string

// The styles, as terminals know them.
const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	blue   style = "34"
)

// painter puts styles around text, or leaves it.
type painter bool

func (on painter) paint(s style, text string) string {
	if !on || s == plain || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// cell is text in a table.
type cell struct {
	text  string
	style style
}

// table is aligned by columns. Widths are counted before styles are put on,
// which text/tabwriter would count as text.
type table struct {
	head  []string // may be empty
	right []bool   // columns that are aligned to the right
	rows  [][]cell
	most  int // the longest cell, 0: any
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

func text(s string) cell { return cell{text: clean(s)} }

// render gives the table's lines. What is empty is a dash.
func (t *table) render(p painter) []byte {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = len(h)
	}
	for _, row := range t.rows {
		for i := range row {
			if row[i].text == "" {
				row[i].text = "–"
			}
			row[i].text = cut(row[i].text, t.most)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b bytes.Buffer
	if len(t.head) > 0 {
		head := make([]cell, len(t.head))
		for i, h := range t.head {
			head[i] = cell{h, dim}
		}
		t.line(&b, head, widths, p)
	}
	for _, row := range t.rows {
		t.line(&b, row, widths, p)
	}
	return b.Bytes()
}

func (t *table) line(b *bytes.Buffer, row []cell, widths []int, p painter) {
	for i, c := range row {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
		painted := p.paint(c.style, c.text)
		switch {
		case i < len(t.right) && t.right[i]:
			b.WriteString(pad + painted)
		case i == len(row)-1:
			b.WriteString(painted)
		default:
			b.WriteString(painted + pad)
		}
		if i < len(row)-1 {
			b.WriteString("  ")
		}
	}
	b.WriteByte('\n')
}
