//! Handlers that are known by name: log lines and metrics then tell the controller and the action.

use crate::current;
use axum::extract::Request;
use axum::handler::Handler;
use axum::routing::MethodRouter;

/// A handler that tells its name to the request's log line.
#[derive(Clone, Copy, Debug)]
pub struct Named<H>(H);

/// Makes a handler known by name, for `get(named(list)).post(named(create))`. A closure's name is that of the function around it.
pub fn named<H>(handler: H) -> Named<H> {
    Named(handler)
}

impl<H, T, S> Handler<T, S> for Named<H>
where
    H: Handler<T, S>,
    T: 'static,
    S: 'static,
{
    type Future = H::Future;

    fn call(self, request: Request, state: S) -> Self::Future {
        current::handled_by(std::any::type_name::<H>());
        self.0.call(request, state)
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

/// Controller and action of a handler: `shop::users::index` is `users` and `index`.
pub(crate) fn controller_and_action(handler: &'static str) -> (&'static str, &'static str) {
    // Generic parameters hold paths of their own.
    let mut handler = handler.split('<').next().unwrap_or(handler);
    while let Some(around) = handler.strip_suffix("::{{closure}}") {
        handler = around;
    }
    let (path, action) = handler.rsplit_once("::").unwrap_or(("", handler));
    (path.rsplit("::").next().unwrap_or(path), action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_controller_and_the_function_the_action() {
        assert_eq!(controller_and_action("shop::users::index"), ("users", "index"));
        assert_eq!(controller_and_action("shop::main::{{closure}}"), ("shop", "main"));
        assert_eq!(controller_and_action("shop::list::all<alloc::string::String>"), ("list", "all"));
        assert_eq!(controller_and_action("odd"), ("", "odd"));
    }
}
