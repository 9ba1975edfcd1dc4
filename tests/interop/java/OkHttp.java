// A WebSocket of OkHttp, which Socket.IO's clients for Java and Android use: java -cp okhttp.jar:okio.jar FILE URL
//
// As those clients do, it listens for onClosed and onFailure, and not for onClosing.  It writes a line for each message, and
// one for the end.

import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.WebSocket;
import okhttp3.WebSocketListener;

public class OkHttp {
    static void say(String what) {
        System.out.println(what);
        System.out.flush();
    }

    public static void main(String[] arguments) {
        OkHttpClient client = new OkHttpClient();
        Request request = new Request.Builder().url(arguments[0] + "EIO=4&transport=websocket").build();
        client.newWebSocket(request, new WebSocketListener() {
            @Override
            public void onOpen(WebSocket webSocket, Response response) {
                webSocket.send("40");
            }

            @Override
            public void onMessage(WebSocket webSocket, String text) {
                say("message " + text);
            }

            @Override
            public void onClosed(WebSocket webSocket, int code, String reason) {
                say("end: closed");
                System.exit(0);
            }

            @Override
            public void onFailure(WebSocket webSocket, Throwable error, Response response) {
                say("end: " + error.getClass().getSimpleName());
                System.exit(0);
            }
        });
    }
}
