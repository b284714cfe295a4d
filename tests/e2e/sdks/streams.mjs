// Streams of the official SDKs, asked for one after another: what came, and what was raised.
//
// Reads {"provider": url, "cases": [{"id", "endpoint", "address", "model"}, …]} from its input and writes a line of
// JSON for each case.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.SDKS + "/");
const load = async (name) => (await import(pathToFileURL(require.resolve(name)))).default;
const Anthropic = await load("@anthropic-ai/sdk");
const OpenAI = await load("openai");

const HI = [{ role: "user", content: "Say hi." }];
const options = (baseURL) => ({ baseURL, apiKey: "any", maxRetries: 0, timeout: 20_000 });
const openai = (address) => new OpenAI(options(address + "/v1"));
const anthropic = (address) => new Anthropic(options(address));

// How each endpoint is asked for a stream, and the text in one of its events.
const ENDPOINTS = {
  chat: [
    (address, model) => openai(address).chat.completions.create({ model, messages: HI, stream: true }),
    (event) => event.choices?.[0]?.delta?.content,
  ],
  completions: [
    (address, model) => openai(address).completions.create({ model, prompt: "Say hi.", stream: true }),
    (event) => event.choices?.[0]?.text,
  ],
  responses: [
    (address, model) => openai(address).responses.create({ model, input: "Say hi.", stream: true }),
    (event) => (event.type === "response.output_text.delta" ? event.delta : undefined),
  ],
  messages: [
    (address, model) =>
      anthropic(address).messages.create({ model, max_tokens: 9, messages: HI, stream: true }),
    (event) => (event.type === "content_block_delta" ? event.delta.text : undefined),
  ],
};

const { provider, cases } = JSON.parse(readFileSync(0, "utf8"));
for (const { id, endpoint, address, model } of cases) {
  const [ask, textOf] = ENDPOINTS[endpoint];
  const got = [];
  let error = null;
  try {
    for await (const event of await ask(address, model)) {
      const text = textOf(event);
      if (text && got.push(text) === 1 && !model.endsWith("idle")) {
        await fetch(provider + "/go"); // from here the provider may do what the case is about
      }
    }
  } catch (raised) {
    const isOfSDK = raised instanceof OpenAI.APIError || raised instanceof Anthropic.APIError;
    error = { class: raised.constructor.name, isOfSDK, text: `${raised.message} ${JSON.stringify(raised.error)}` };
  }
  console.log(JSON.stringify({ id, got: got.join(""), error }));
}
