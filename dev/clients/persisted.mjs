// Asks one query twice by Apollo Client's link for automatic persisted queries, each time with a fresh client so that no
// cache answers, and prints what was asked over HTTP and what the answers were as JSON.
//
// usage: TOKEN=... node persisted.mjs URL
import { createHash } from "node:crypto";

import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";

const [url] = process.argv.slice(2);
const exchanges = [];

async function recorded(input, init) {
  const response = await fetch(input, init);
  const sent = init.body ? JSON.parse(init.body) : Object.fromEntries(new URL(input).searchParams);
  const answer = await response.clone().json();
  exchanges.push({
    method: init.method,
    status: response.status,
    hasQuery: "query" in sent,
    code: answer.errors?.[0]?.extensions?.code ?? "",
  });
  return response;
}

const answers = [];
for (let round = 0; round < 2; round++) {
  const client = new ApolloClient({
    cache: new InMemoryCache(),
    link: ApolloLink.from([
      new PersistedQueryLink({
        sha256: (text) => createHash("sha256").update(text).digest("hex"),
        useGETForHashedQueries: true,
      }),
      new HttpLink({ uri: url, fetch: recorded, headers: { authorization: `Bearer ${process.env.TOKEN}` } }),
    ]),
  });
  const { data } = await client.query({ query: gql`query Whoami { me { username } }` });
  answers.push(data.me.username);
  client.stop();
}
console.log(JSON.stringify({ exchanges, answers }));
