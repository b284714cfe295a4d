<?php
// PHP: json_decode, as array and as object. A line of base64 in, what is read out, as a line of JSON.
const WORDS = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"];

function reading(string $how, mixed $found): ?array
{
    if (!is_array($found) || ($found && array_is_list($found))) {
        return null;
    }
    $limits = [];
    foreach (WORDS as $word) {
        if (isset($found[$word])) {
            $value = $found[$word];
            $limits[$word] = is_array($value) || is_object($value) ? 1 : max((int) $value, (float) $value);
            if (!is_finite($limits[$word])) {
                $limits[$word] = (string) $limits[$word];
            }
        }
    }
    $model = $found["model"] ?? null;
    return [
        "how" => $how,
        "model" => $model === null || is_string($model) ? $model : var_export($model, true),
        "limits" => (object) $limits,
        "stream" => (bool) ($found["stream"] ?? false),
        "evil" => [],
    ];
}

while (($line = fgets(STDIN)) !== false) {
    $body = base64_decode(trim($line));
    $told = [];
    $told[] = reading("json_decode", json_decode($body, true));
    $told[] = reading("json_decode, bad text let pass", json_decode($body, true, 512, JSON_INVALID_UTF8_IGNORE));
    $object = json_decode($body);
    $told[] = reading("json_decode to an object", is_object($object) ? get_object_vars($object) : null);
    echo json_encode(array_values(array_filter($told)), JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR), "\n";
}
