//! The table of routes, and its description as OpenAPI: both are made of the handlers.
//!
//! A route comes in through [`Api`] alone, which asks the types of its handler what it takes and what it gives. So what
//! is served is described, and what is described is what `serde` reads and writes. Only pages for browsers are not.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use fleet::protocol::Denial;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::Value;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApiBuilder, Paths, Ref, RefOr, Required, Schema,
};

use super::Shared;

/// The scheme of a host's certificate.
const HOST: &str = "host";

/// The scheme of a person's token.
const PERSON: &str = "person";

/// The media type of almost everything.
const JSON: &str = "application/json";

/// What is written down of one operation while its handler's types tell of themselves.
pub(super) struct Page<'a> {
    schemas: &'a mut SchemaGenerator,
    operation: Operation,
    /// The names in the path that nobody has told of yet.
    names: Vec<String>,
}

impl Page<'_> {
    fn schema<T: JsonSchema>(&mut self) -> RefOr<Schema> {
        schema::<T>(self.schemas)
    }

    fn write(&mut self, write: impl FnOnce(OperationBuilder) -> OperationBuilder) {
        let operation = std::mem::take(&mut self.operation);
        self.operation = write(operation.into()).build();
    }

    /// Only hosts ask, by their certificate.
    pub(super) fn by_hosts(&mut self) {
        self.write(|page| page.security(SecurityRequirement::new(HOST, [""; 0])));
    }

    /// Only people ask, who are at least this.
    pub(super) fn by_people(&mut self, role: crate::access::Role) {
        let needs = format!("Asked by people who are at least {role}.");
        self.write(|page| page.security(SecurityRequirement::new(PERSON, [""; 0])).description(Some(needs)));
    }

    /// The next name in the path is one of these.
    pub(super) fn place<T: JsonSchema>(&mut self) {
        assert!(!self.names.is_empty(), "a handler takes more of the path than there is");
        let name = self.names.remove(0);
        let schema = self.schema::<T>();
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(schema));
        self.write(|page| page.parameter(parameter));
    }

    /// A header may be sent.
    pub(super) fn header(&mut self, name: &str, meaning: &str) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(meaning))
            .schema(Some(text()));
        self.write(|page| page.parameter(parameter));
    }

    /// The body is this, in JSON.
    pub(super) fn body<T: JsonSchema>(&mut self) {
        let content = ContentBuilder::new().schema(Some(self.schema::<T>())).build();
        self.request(JSON, content);
    }

    /// The body is bytes.
    pub(super) fn bytes(&mut self) {
        self.request("application/octet-stream", ContentBuilder::new().build());
    }

    fn request(&mut self, media: &str, content: utoipa::openapi::Content) {
        let body = RequestBodyBuilder::new().content(media, content).required(Some(Required::True)).build();
        self.write(|page| page.request_body(Some(body)));
    }

    /// The answer is this, in JSON.
    pub(super) fn answer<T: JsonSchema>(&mut self, meaning: &str) {
        let content = ContentBuilder::new().schema(Some(self.schema::<T>())).build();
        let response = ResponseBuilder::new().description(meaning).content(JSON, content);
        self.write(|page| page.response("200", response));
    }

    /// With this status, the answer is text or bytes.
    pub(super) fn plain(&mut self, status: &str, media: &str, meaning: &str) {
        let content = ContentBuilder::new().schema(Some(text())).build();
        let response = ResponseBuilder::new().description(meaning).content(media, content);
        self.write(|page| page.response(status, response));
    }

    /// With this status, there is no more to say.
    pub(super) fn empty(&mut self, status: &str, meaning: &str) {
        self.write(|page| page.response(status, ResponseBuilder::new().description(meaning)));
    }
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).into()
}

fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> RefOr<Schema> {
    let schema = schemas.subschema_for::<T>().to_value();
    serde_json::from_value(schema).expect("a name of a schema, or a list of it, is one in OpenAPI, too")
}

/// Something that a handler takes.
pub(super) trait Takes {
    /// Tells what it is.
    fn tell(page: &mut Page<'_>);
}

/// Something that a handler gives.
pub(super) trait Gives {
    /// Tells what it is.
    fn tell(page: &mut Page<'_>);
}

/// A handler, by what it takes (`A`) and gives.
pub(super) trait Described<A> {
    /// Tells what it takes and gives.
    fn tell(page: &mut Page<'_>);
}

macro_rules! described {
    ($($taken:ident)*) => {
        impl<F, R, G, $($taken),*> Described<($($taken,)*)> for F
        where
            F: Fn($($taken),*) -> R,
            R: Future<Output = Result<G, super::answer::Refusal>>,
            G: Gives,
            $($taken: Takes),*
        {
            fn tell(page: &mut Page<'_>) {
                $($taken::tell(page);)*
                G::tell(page);
            }
        }
    };
}

described!();
described!(A);
described!(A B);
described!(A B C);
described!(A B C D);

/// Routes with their description.
pub(super) struct Api {
    /// What serves them.
    pub(super) router: Router<Shared>,
    paths: Paths,
    schemas: SchemaGenerator,
}

impl Api {
    /// No routes yet.
    pub(super) fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        Self { router: Router::new(), paths: Paths::new(), schemas: settings.into_generator() }
    }

    /// A route that answers `GET`.
    pub(super) fn get<T: 'static, A>(
        self,
        path: &str,
        name: &str,
        summary: &str,
        handler: impl Handler<T, Shared> + Described<A>,
    ) -> Self {
        self.route((HttpMethod::Get, MethodFilter::GET), path, [name, summary], handler)
    }

    /// A route that answers `POST`.
    pub(super) fn post<T: 'static, A>(
        self,
        path: &str,
        name: &str,
        summary: &str,
        handler: impl Handler<T, Shared> + Described<A>,
    ) -> Self {
        self.route((HttpMethod::Post, MethodFilter::POST), path, [name, summary], handler)
    }

    /// A route that answers `PUT`.
    pub(super) fn put<T: 'static, A>(
        self,
        path: &str,
        name: &str,
        summary: &str,
        handler: impl Handler<T, Shared> + Described<A>,
    ) -> Self {
        self.route((HttpMethod::Put, MethodFilter::PUT), path, [name, summary], handler)
    }

    /// A page for people with a browser: no part of what is described.
    pub(super) fn page<T: 'static>(
        mut self,
        filter: MethodFilter,
        path: &str,
        handler: impl Handler<T, Shared>,
    ) -> Self {
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    fn route<T: 'static, A, H: Handler<T, Shared> + Described<A>>(
        mut self,
        (method, filter): (HttpMethod, MethodFilter),
        path: &str,
        [name, summary]: [&str; 2],
        handler: H,
    ) -> Self {
        // A place that takes the rest of the path is one for `axum` alone.
        let described = path.replace("{*", "{");
        let names = described.split(['{', '}']).skip(1).step_by(2).map(str::to_owned).collect();
        let begun = OperationBuilder::new().operation_id(Some(name)).summary(Some(summary)).build();
        let mut page = Page { schemas: &mut self.schemas, operation: begun, names };
        H::tell(&mut page);
        assert!(page.names.is_empty(), "{path}: its handler does not take {:?}", page.names);
        page.write(|page| {
            page.response("429", Ref::from_response_name("TooMany"))
                .response("default", Ref::from_response_name("Denied"))
        });
        let operation = page.operation;
        self.paths.add_path_operation(described, vec![method], operation);
        self.router = self.router.route(path, on(filter, handler));
        self
    }

    /// The description of all routes: an OpenAPI document.
    pub(super) fn description(mut self) -> Value {
        let denial = ContentBuilder::new().schema(Some(schema::<Denial>(&mut self.schemas))).build();
        let denied = ResponseBuilder::new()
            .description("Why not: by the status, and in words")
            .content(JSON, denial.clone());
        let wait = HeaderBuilder::new()
            .schema(Some(Schema::from(ObjectBuilder::new().schema_type(Type::Integer))))
            .description(Some("After how many seconds to ask again"));
        let too_many = ResponseBuilder::new()
            .description("Too many requests of this address, host or person, or too many wrong tokens")
            .header("Retry-After", wait.build())
            .content(JSON, denial);
        let certificate = SecurityScheme::MutualTls {
            description: Some("A certificate of the fleet's own authority, from enrol or renew".to_owned()),
            deprecated: None,
            extensions: None,
        };
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A person's token, from the controller's first start or from admit"));
        let components = ComponentsBuilder::new()
            .response("Denied", denied)
            .response("TooMany", too_many)
            .security_scheme(HOST, certificate)
            .security_scheme(PERSON, SecurityScheme::Http(token.build()));
        let info = InfoBuilder::new().title("update-controller").version("1").description(Some(
            "What hosts and people say to the controller of a fleet. Paths begin with the version; a message \
                 with a field that is not described here is refused.",
        ));
        let document =
            OpenApiBuilder::new().info(info).paths(self.paths).components(Some(components.build())).build();
        let mut document = serde_json::to_value(document).expect("a document of strings and maps");
        let mut schemas = self.schemas.take_definitions(true);
        schemas.sort_keys();
        document["components"]["schemas"] = Value::Object(schemas);
        document
    }
}
