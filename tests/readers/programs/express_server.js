// Express 5 and 4: express.json() with express.urlencoded() as everybody has them, and express.json() for any type.
"use strict";

const WORDS = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"];
let told = [];

// A limit as JavaScript's own words for conversion have it: the largest, since programs use either.
function number(value) {
  const tried = [Number(value), parseInt(value, 10), parseFloat(value)].filter((one) => !Number.isNaN(one));
  return tried.length && tried.every(Number.isFinite) ? Math.max(...tried) : String(value);
}

function note(how, request, body) {
  if (body === null || typeof body !== "object" || Array.isArray(body)) return false;
  // As programs merge it: a key __proto__ would become the object's own.
  const said = Object.assign({}, body, request.query);
  const limits = {};
  for (const word of WORDS) {
    if (said[word] !== undefined && said[word] !== null) limits[word] = number(said[word]);
  }
  const model = said.model === undefined ? null : said.model;
  const evil = Object.keys(request.headers).filter((name) => String(request.headers[name]).includes("evil"));
  told.push({
    how,
    model: model === null || typeof model === "string" ? model : JSON.stringify(model),
    limits,
    stream: Boolean(said.stream),
    evil,
  });
  return true;
}

function application(express, version) {
  const app = express();
  app.get("/readings", (request, response) => {
    response.json(told);
    told = [];
  });
  const answer = (how) => (request, response) => {
    response.status(note(`${version} ${how}`, request, request.body) ? 200 : 400).json({});
  };
  const usual = [express.json({ limit: "16mb" }), express.urlencoded({ extended: true, limit: "16mb" })];
  app.post("/usual/v1/chat/completions", usual, answer("json() and urlencoded()"));
  const any = express.json({ limit: "16mb", strict: false, type: () => true });
  app.post("/any/v1/chat/completions", any, answer("json() of any type"));
  // Without the type by the head: text that the program parses.
  const text = express.text({ limit: "16mb", type: () => true });
  app.post("/text/v1/chat/completions", text, (request, response) => {
    let body = null;
    try {
      body = JSON.parse(request.body);
    } catch (error) {
      return response.status(400).json({});
    }
    response.status(note(`${version} text() and JSON.parse`, request, body) ? 200 : 400).json({});
  });
  app.use((error, request, response, next) => response.status(error.status || 400).json({}));
  return app;
}

application(require("express"), "express 5").listen(Number(process.argv[2]), "127.0.0.1");
application(require("express4"), "express 4").listen(Number(process.argv[3]), "127.0.0.1");
