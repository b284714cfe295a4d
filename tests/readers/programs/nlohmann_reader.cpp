// nlohmann/json, which llama.cpp's server reads with: a line of base64 in, a line of JSON out.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

using nlohmann::json;

static std::string decode(const std::string &text) {
    static const std::string all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    unsigned bits = 0;
    int held = 0;
    for (char letter : text) {
        size_t value = all.find(letter);
        if (value == std::string::npos) break;
        bits = bits << 6 | static_cast<unsigned>(value);
        if ((held += 6) >= 8) out += static_cast<char>(bits >> (held -= 8) & 0xff);
    }
    return out;
}

static void note(json &told, const char *how, const json &found) {
    if (!found.is_object()) return;
    json one = {{"how", how}, {"model", nullptr}, {"limits", json::object()}, {"stream", false}, {"evil", json::array()}};
    if (found.contains("model")) one["model"] = found["model"].is_string() ? found["model"] : json(found["model"].dump());
    for (const char *word : {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"})
        if (found.contains(word) && found[word].is_number()) one["limits"][word] = found[word].get<double>();
    if (found.contains("stream") && found["stream"].is_boolean()) one["stream"] = found["stream"];
    told.push_back(one);
}

int main() {
    std::string line;
    while (std::getline(std::cin, line)) {
        std::string body = decode(line);
        json told = json::array();
        note(told, "json::parse", json::parse(body, nullptr, false));
        note(told, "json::parse with comments", json::parse(body, nullptr, false, true));
        std::cout << told.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
    }
}
