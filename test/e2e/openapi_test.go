package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/sandman-proxy/sandman/internal/api"
)

// openAPI is the API's own description, compiled before the first test: that takes longer than some of the
// times that tests look at.
var openAPI = sync.OnceValues(func() (validator.Validator, error) {
	h, err := api.New(api.Config{Version: "test"})
	if err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/openapi.json", nil))
	document, err := libopenapi.NewDocument(w.Body.Bytes())
	if err != nil {
		return nil, fmt.Errorf("reading the OpenAPI file (%d): %w", w.Code, err)
	}
	v, errs := validator.NewValidator(document)
	return v, errors.Join(errs...)
})

// judged are the answers that were held against it: tests ask the same again and again while they wait.
var judged sync.Map

// requireAsDocumented fails the test if an answer of the API is not as its OpenAPI file says.
func (s *sandman) requireAsDocumented(t *testing.T, r *http.Request, a answer) {
	t.Helper()
	key := fmt.Sprint(r.Method, r.URL.Path, a.status, a.body)
	if _, known := judged.LoadOrStore(key, true); known || strings.Contains(a.body, `"no-such-route"`) || strings.Contains(a.body, `"method-not-allowed"`) {
		return
	}
	valid, err := openAPI()
	if err != nil {
		t.Fatalf("the API's own description: %v", err)
	}
	res := &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}
	if ok, errs := valid.ValidateHttpResponse(r, res); !ok {
		for _, err := range errs {
			t.Errorf("%s %s: %s is not as the OpenAPI file says: %v", r.Method, r.URL.Path, a, err)
		}
	}
}
