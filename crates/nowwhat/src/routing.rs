//! Handlers that are known by name: log lines and metrics then tell the controller and the action.

use crate::current;
use axum::extract::Request;
use axum::handler::Handler;
use axum::routing::MethodRouter;

/// A handler that tells its name to the request's log line.
#[derive(Clone, Copy, Debug)]
pub struct Named<H> {
    handler: H,
    name: Name,
}

/// What log lines call a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Its module: `users` of `shop::users::index`.
    pub(crate) controller: &'static str,
    /// Its function: `index`.
    pub(crate) action: &'static str,
}

/// Makes a handler known by name, for `get(named(list)).post(named(create))`. A closure's name is that of the function around it.
pub fn named<H>(handler: H) -> Named<H> {
    Named { handler, name: Name::of(std::any::type_name::<H>()) }
}

impl<H, T, S> Handler<T, S> for Named<H>
where
    H: Handler<T, S>,
    T: 'static,
    S: 'static,
{
    type Future = H::Future;

    fn call(self, request: Request, state: S) -> Self::Future {
        current::handled_by(self.name);
        self.handler.call(request, state)
    }
}

macro_rules! methods {
    ($($name:ident $method:literal),*) => {$(
        #[doc = concat!("Routes ", $method, " to a handler, known by name.")]
        pub fn $name<H, T, S>(handler: H) -> MethodRouter<S>
        where
            H: Handler<T, S>,
            T: 'static,
            S: Clone + Send + Sync + 'static,
        {
            axum::routing::$name(named(handler))
        }
    )*};
}
methods!(get "GET", post "POST", put "PUT", patch "PATCH", delete "DELETE");

impl Name {
    /// The name of a handler with this path.
    fn of(handler: &'static str) -> Self {
        // Generic parameters hold paths of their own.
        let mut handler = handler.split('<').next().unwrap_or(handler);
        while let Some(around) = handler.strip_suffix("::{{closure}}") {
            handler = around;
        }
        let (path, action) = handler.rsplit_once("::").unwrap_or(("", handler));
        Self { controller: path.rsplit("::").next().unwrap_or(path), action }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_controller_and_the_function_the_action() {
        let name = |controller, action| Name { controller, action };
        assert_eq!(Name::of("shop::users::index"), name("users", "index"));
        assert_eq!(Name::of("shop::main::{{closure}}"), name("shop", "main"));
        assert_eq!(Name::of("shop::list::all<alloc::string::String>"), name("list", "all"));
        assert_eq!(Name::of("odd"), name("", "odd"));
    }
}
