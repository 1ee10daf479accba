// Composes ChatApp with a second subgraph by Apollo's own composition, executes queries that need both by Apollo's own
// gateway, and prints their responses as JSON.
//
// usage: TOKEN=... node federation.mjs URL NICKNAMES PINNED QUERY...
//
// The second subgraph knows the nicknames of users and a list of pinned messages, by their ids in ChatApp: NICKNAMES is a
// JSON object of them, PINNED a JSON list.
import { composeServices } from "@apollo/composition";
import gatewayPackage from "@apollo/gateway";
import { buildSchema, parse } from "graphql";

const { ApolloGateway, LocalGraphQLDataSource, RemoteGraphQLDataSource } = gatewayPackage;
process.env.APOLLO_TELEMETRY_DISABLED = "true";

const [url, nicknames, pinned, ...queries] = process.argv.slice(2);
const nicknameOf = JSON.parse(nicknames);
const authorization = `Bearer ${process.env.TOKEN}`;

// The types of the second subgraph, as its server and as a composition has them. It pages as Relay does, too.
const types = (key, reference, shareable) => `
  type User ${key} { id: ID! nickname: String }
  type Message ${reference} { id: ID! }
  type PageInfo ${shareable} { hasPreviousPage: Boolean! hasNextPage: Boolean! startCursor: String endCursor: String }
  type PinnedConnection { nodes: [Message]! pageInfo: PageInfo! }
  type Query { nicknamed(nickname: String!): User pinned: PinnedConnection! }
`;
const composed = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key", "@shareable"])
  ${types('@key(fields: "id")', '@key(fields: "id", resolvable: false)', "@shareable")}
`;
const served = buildSchema(`
  ${types("", "", "")}
  scalar _Any
  union _Entity = User | Message
  extend type Query { _entities(representations: [_Any!]!): [_Entity]! }
`);
const user = (id) => ({ __typename: "User", id, nickname: nicknameOf[id] });
Object.assign(served.getQueryType().getFields().nicknamed, {
  resolve: (_, { nickname }) => Object.keys(nicknameOf).filter((id) => nicknameOf[id] === nickname).map(user)[0],
});
Object.assign(served.getQueryType().getFields().pinned, {
  resolve: () => ({
    nodes: JSON.parse(pinned).map((id) => ({ id })),
    pageInfo: { hasPreviousPage: false, hasNextPage: false },
  }),
});
Object.assign(served.getQueryType().getFields()._entities, {
  resolve: (_, { representations }) => representations.map(({ id }) => user(id)),
});

// A composition asks without a token.
const asked = await fetch(url, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ query: "{ _service { sdl } }" }),
});
const { sdl } = (await asked.json()).data._service;
const composition = composeServices([
  { name: "chatapp", url, typeDefs: parse(sdl) },
  { name: "nicknames", url: "http://nicknames.invalid", typeDefs: parse(composed) },
]);
if (composition.errors) {
  throw new Error(composition.errors.map((error) => error.message).join("\n"));
}

const gateway = new ApolloGateway({
  supergraphSdl: composition.supergraphSdl,
  buildService: ({ name }) =>
    name === "nicknames"
      ? new LocalGraphQLDataSource(served)
      : new RemoteGraphQLDataSource({
          url,
          willSendRequest: ({ request }) => request.http.headers.set("Authorization", authorization),
        }),
});
const { executor } = await gateway.load();
const responses = [];
for (const query of queries) {
  const response = await executor({ request: { query }, document: parse(query), queryHash: query, context: {} });
  responses.push({ data: response.data, errors: response.errors });
}
await gateway.stop();
console.log(JSON.stringify(responses));
