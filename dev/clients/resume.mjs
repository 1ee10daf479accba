// ResumeLink makes a subscription of Apollo Client go on where it was, whatever ends its connection: a restart of the server
// (1012), an eviction (1013), a token that has expired (4403, UNAUTHENTICATED), or the network. It stands before the link
// that subscribes, which must not try again by itself, since it would do so from the cursor that it was begun with.
import { ApolloLink, CombinedGraphQLErrors, CombinedProtocolErrors, Observable, ServerError } from "@apollo/client";
import { PROTOCOL_ERRORS_SYMBOL } from "@apollo/client/errors";

// The codes with which the same subscription may succeed later, UNAUTHENTICATED with a fresh token.
const passing = new Set(["UNAUTHENTICATED", "UNAVAILABLE", "RATE_LIMITED"]);

export class ResumeLink extends ApolloLink {
  // attempts is how often in a row it tries without an event, and pause how many milliseconds it waits before each.
  constructor({ attempts = Infinity, pause = () => 1000 * Math.random() } = {}) {
    super();
    this.attempts = attempts;
    this.pause = pause;
  }

  request(operation, forward) {
    return new Observable((observer) => {
      let attempt = 0;
      let current, timer;
      const begin = () => {
        let over = false;
        const again = (error) => {
          if (over) return;
          over = true;
          current?.unsubscribe();
          if (!mayPass(error) || ++attempt > this.attempts) {
            observer.error(error);
            return;
          }
          timer = setTimeout(begin, this.pause(attempt));
        };
        current = forward(operation).subscribe({
          next: (result) => {
            const error = errorOf(result);
            if (error) return again(error);
            attempt = 0;
            operation.variables = { ...operation.variables, after: result.data.newMessage.cursor };
            observer.next(result);
          },
          error: again,
          // newMessage never ends by itself.
          complete: () => again(new Error("the subscription ended")),
        });
      };
      begin();
      return () => {
        clearTimeout(timer);
        current?.unsubscribe();
      };
    });
  }
}

// errorOf returns the error that a result is, since newMessage sends either an event or what it ends with.
function errorOf(result) {
  return result.extensions?.[PROTOCOL_ERRORS_SYMBOL] ?? (result.errors && new CombinedGraphQLErrors(result));
}

// mayPass tells whether it makes sense to try again.
function mayPass(error) {
  if (CombinedGraphQLErrors.is(error) || CombinedProtocolErrors.is(error)) {
    return passing.has(error.errors[0].extensions?.code);
  }
  return !ServerError.is(error) || error.statusCode >= 500;
}
