package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// withBody returns the request with another body, which a transport may send
// again on a new connection if the old one turns out to be closed.
func withBody(r *http.Request, body []byte) *http.Request {
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength, r.TransferEncoding = int64(len(body)), nil
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return r
}

// readAnswer reads a host's whole answer and closes it.
func readAnswer(res *http.Response) ([]byte, error) {
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxE2BBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the host's answer: %w", err)
	}
	if len(body) > maxE2BBody {
		return nil, errors.New("reading the host's answer: it is too large")
	}
	return body, nil
}

func setBody(res *http.Response, body []byte) {
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength, res.TransferEncoding = int64(len(body)), nil
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// editSandbox gives the sandbox in an answer the operator's domain.
func (p *passThrough) editSandbox(res *http.Response) error {
	if p.Domain == "" || (res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated) {
		return nil
	}
	answer, err := readAnswer(res)
	if err != nil {
		return err
	}
	setBody(res, p.withDomain(answer))
	return nil
}

// withDomain gives a sandbox the operator's domain.
func (p *passThrough) withDomain(sandbox []byte) []byte {
	if p.Domain == "" {
		return sandbox
	}
	return editJSON(sandbox, func(fields map[string]json.RawMessage) {
		fields["domain"] = mustMarshal(p.Domain)
	})
}

// editJSON changes fields of a JSON object and leaves all others as they are,
// also those that nobody here knows. What is no object stays as it is.
func editJSON(object []byte, edit func(map[string]json.RawMessage)) []byte {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil || fields == nil {
		return object
	}
	edit(fields)
	return mustMarshal(fields)
}

// mustMarshal renders strings and what was read as JSON, which can't fail.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
