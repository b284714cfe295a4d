// Go: encoding/json into a struct, which takes keys in either case; of a whole text, and from a stream.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type chat struct {
	Model               *string      `json:"model"`
	MaxTokens           *json.Number `json:"max_tokens"`
	MaxCompletionTokens *json.Number `json:"max_completion_tokens"`
	MaxOutputTokens     *json.Number `json:"max_output_tokens"`
	N                   *json.Number `json:"n"`
	BestOf              *json.Number `json:"best_of"`
	Stream              *bool        `json:"stream"`
}

type reading struct {
	How    string         `json:"how"`
	Model  any            `json:"model"`
	Limits map[string]any `json:"limits"`
	Stream bool           `json:"stream"`
	Evil   []string       `json:"evil"`
}

func note(how string, found *chat) reading {
	one := reading{how, nil, map[string]any{}, found.Stream != nil && *found.Stream, []string{}}
	if found.Model != nil {
		one.Model = *found.Model
	}
	words := []string{"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"}
	values := []*json.Number{found.MaxTokens, found.MaxCompletionTokens, found.MaxOutputTokens, found.N, found.BestOf}
	for at, value := range values {
		if value == nil || *value == "" {
			continue
		}
		if number, err := value.Float64(); err == nil {
			one.Limits[words[at]] = number
		} else {
			one.Limits[words[at]] = value.String()
		}
	}
	return one
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<26)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		body, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		told := []reading{}
		whole := chat{}
		if json.Unmarshal(body, &whole) == nil && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
			told = append(told, note("json.Unmarshal", &whole))
		}
		first := chat{}
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&first); err == nil {
			if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
				told = append(told, note("json.Decoder", &first))
			}
		}
		out, _ := json.Marshal(told)
		fmt.Println(string(out))
	}
}
