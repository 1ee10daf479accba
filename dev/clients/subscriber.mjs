// Subscribes to newMessage with one of the clients that people use, goes on after whatever ends its connection, and tells
// what it is told as lines of JSON:
//
//   {"event": {"cursor": ..., "message": {"body": ...}}}
//   {"closed": CODE}     a WebSocket was closed
//   {"failed": TEXT}     the client has given up
//
// A line of its standard input is the token to use from then on. It leaves when that ends.
//
// usage: TOKEN=... AFTER=... ATTEMPTS=... node subscriber.mjs CLIENT URL
import { createInterface } from "node:readline";

import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { SetContextLink } from "@apollo/client/link/context";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient as createEventsClient } from "graphql-sse";
import { createClient as createSocketClient } from "graphql-ws";
import WebSocket from "ws";

import { ResumeLink } from "./resume.mjs";

// Node has it from version 22 on, and Apollo's link looks for it.
globalThis.WebSocket ??= WebSocket;

const [name, url] = process.argv.slice(2);
const query = "subscription NewMessage($after: Cursor) { newMessage(after: $after) { cursor message { body } } }";
const attempts = Number(process.env.ATTEMPTS);
const pause = () => 50 + 50 * Math.random();
const paused = () => new Promise((resolve) => setTimeout(resolve, pause()));
let token = process.env.TOKEN;
// The packages send the variables as they are at the time.
const variables = { after: process.env.AFTER };

const tell = (what) => console.log(JSON.stringify(what));
let failed = false;
const fail = (error) => {
  // Some complete what has failed.
  if (failed) return;
  failed = true;
  tell({ failed: [error.code, error.reason, error.message, JSON.stringify(error.errors ?? error)].join(" ") });
};
const heard = ({ newMessage }) => {
  variables.after = newMessage.cursor;
  tell({ event: newMessage });
};

function socketClient(options) {
  return createSocketClient({
    url: url.replace(/^http/, "ws"),
    webSocketImpl: WebSocket,
    connectionParams: () => ({ authorization: `Bearer ${token}` }),
    on: { closed: ({ code }) => tell({ closed: code }) },
    ...options,
  });
}

// What ws reports before a close has no code, and is no reason to give up.
const always = { retryAttempts: attempts, retryWait: paused, shouldRetry: () => true };

function socket() {
  const client = socketClient(always);
  client.subscribe({ query, variables }, { next: ({ data }) => heard(data), error: fail, complete: () => fail(new Error("completed")) });
  return () => client.dispose();
}

function events(singleConnection) {
  const client = createEventsClient({
    url,
    singleConnection,
    headers: () => ({ authorization: `Bearer ${token}` }),
    retryAttempts: attempts,
    retry: paused,
  });
  let tries = 0;
  const subscribe = () => {
    let refused;
    client.subscribe({ query, variables }, {
      next: ({ data, errors }) => {
        if (errors) {
          refused = errors;
        } else {
          tries = 0;
          heard(data);
        }
      },
      error: fail,
      complete: () => {
        if (refused?.[0].extensions.code === "UNAUTHENTICATED" && ++tries <= attempts) {
          paused().then(subscribe);
        } else {
          fail({ message: "completed", errors: refused });
        }
      },
    });
  };
  subscribe();
  return () => client.dispose();
}

function apollo(link) {
  const client = new ApolloClient({ cache: new InMemoryCache(), link: ApolloLink.from([new ResumeLink({ attempts, pause }), link]) });
  const subscription = client.subscribe({ query: gql(query), variables, fetchPolicy: "no-cache" }).subscribe({
    next: ({ data, error }) => (error ? fail(error) : heard(data)),
    error: fail,
    complete: () => fail(new Error("completed")),
  });
  return () => {
    subscription.unsubscribe();
    client.stop();
  };
}

const start = {
  "graphql-ws": socket,
  "graphql-sse": () => events(false),
  "graphql-sse, single connection": () => events(true),
  "@apollo/client, WebSocket": () => apollo(new GraphQLWsLink(socketClient({ retryAttempts: 0 }))),
  "@apollo/client, multipart": () =>
    apollo(
      ApolloLink.from([
        new SetContextLink(({ headers }) => ({ headers: { ...headers, authorization: `Bearer ${token}` } })),
        new HttpLink({ uri: url }),
      ]),
    ),
}[name];

const leave = start();
const input = createInterface({ input: process.stdin });
input.on("line", (line) => (token = line));
input.on("close", () => {
  leave();
  // A client may keep the process for connections that it is about to close.
  setTimeout(() => process.exit(0), 200);
});
