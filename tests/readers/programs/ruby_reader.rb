# Ruby: JSON.parse. A line of base64 in, what is read out, as a line of JSON.
require "base64"
require "json"

WORDS = %w[max_tokens max_completion_tokens max_output_tokens n best_of]

# A limit as Ruby's own words for conversion have it: the largest, since programs use either.
def number(value)
  text = value.to_s
  tried = value.is_a?(Numeric) ? [value] : [text.to_i, (Integer(text) rescue nil), (Float(text) rescue nil)]
  largest = tried.compact.max
  largest.is_a?(Integer) || largest.finite? ? largest : largest.to_s
end

def reading(how, found)
  return nil unless found.is_a?(Hash)
  limits = WORDS.select { |word| found[word] }.to_h { |word| [word, number(found[word])] }
  model = found["model"]
  model = model.inspect unless model.nil? || model.is_a?(String)
  { how: how, model: model, limits: limits, stream: !!found["stream"], evil: [] }
end

PARSERS = {
  "JSON.parse" => ->(body) { JSON.parse(body) },
  "JSON.parse of binary" => ->(body) { JSON.parse(body.dup.force_encoding(Encoding::BINARY)) },
  "JSON.parse with NaN" => ->(body) { JSON.parse(body, allow_nan: true, max_nesting: 0) },
}

STDOUT.sync = true
STDIN.each_line do |line|
  body = Base64.strict_decode64(line.strip).force_encoding(Encoding::UTF_8)
  told = PARSERS.map do |how, parse|
    reading(how, parse.call(body))
  rescue JSON::ParserError, EncodingError, ArgumentError, SystemStackError
    nil
  end
  puts JSON.generate(told.compact)
end
