# A small Rails app in one file: sessions in the cookie store, which is what Rails does unless told otherwise.
require "rails"
require "action_controller/railtie"

class People < Rails::Application
  config.load_defaults 6.1
  config.secret_key_base = ENV.fetch("SECRET_KEY_BASE")
  config.session_store :cookie_store, key: "_people_session"
  config.eager_load = false
  config.consider_all_requests_local = false
  config.hosts.clear
  config.logger = Logger.new(File::NULL)
  routes.append do
    get "/login", to: "sign_in#form"
    post "/login", to: "sign_in#enter"
    post "/logout", to: "sign_in#leave"
    get "/", to: "work#home"
    get "/work", to: "work#show"
    get "/news", to: "work#news"
  end
end

class SignInController < ActionController::Base
  def form
    session[:seen] = true
    render inline: '<form method="post" action="/login"><input name="username"><input name="password" type="password"><input type="hidden" name="authenticity_token" value="<%= form_authenticity_token %>"></form>'
  end

  def enter
    if params[:password] == "#{params[:username]}-secret"
      reset_session
      session[:user] = params[:username]
      redirect_to "/work"
    else
      render plain: "wrong", status: 401
    end
  end

  def leave
    reset_session
    redirect_to "/login"
  end
end

class WorkController < ActionController::Base
  before_action { redirect_to "/login" unless session[:user] }

  def home
    redirect_to "/work"
  end

  def show
    session[:visits] = session.fetch(:visits, 0) + 1
    render inline: 'Signed in as <strong><%= session[:user] %></strong><form method="post" action="/logout"><input type="hidden" name="authenticity_token" value="<%= form_authenticity_token %>"></form>'
  end

  def news
    render plain: "none"
  end
end

People.initialize!
